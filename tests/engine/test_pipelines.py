"""Whole runs of pipelines: how they end, what they leave, and what goes wrong around them."""

import os
import signal
import time

import numpy as np
import pytest

from tests import jobs, patience, pipeline_jobs
from tests.engine.test_resume import EVERYTHING, Group, results, wait_for_round
from tests.ranks import ranks
from trainer.config.errors import ConfigError
from trainer.config.load import load

BASE = {
    "seed": 5,
    "rounds": 3,
    "clients": 4,
    "schedule": {"batch_size": 30, "phases": [{"steps": 2}]},
    "optimizer": {"lr": 0.1},
}
THREE = {"pipeline": 3, "microbatches": 3}
SIX = EVERYTHING | {"ranks": 6, "parallel": THREE, "rounds": 12, "checkpoint": {"every": 5}}


@pytest.mark.parametrize(
    "changes,key",
    [
        ({"ranks": 4}, "ranks: 4 is no multiple of parallel.pipeline (3)"),
        ({"ranks": 9, "clients": 2}, "ranks: 9 is 3 pipelines, more than clients (2)"),
        (
            {"ranks": 3, "parallel": THREE | {"schedule": "interleaved", "microbatches": 7}},
            "microbatches: 7 do not divide into rounds of at least 3",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changes, key):
    with pytest.raises(ConfigError) as error:
        load(BASE | {"parallel": THREE} | changes)
    assert key in str(error.value)


def test_the_final_model_loads_in_a_single_process_and_scores_the_same(tmp_path):
    rows, *others = ranks(3).run(jobs.life, BASE | {"parallel": THREE}, str(tmp_path))
    assert [row["round"] for row in rows] == [1, 2, 3, 3] and others == [[], []]
    assert {path.stem for path in tmp_path.glob("logs/*.json")} == {f"rank-{n}" for n in range(3)}
    again = BASE | {"model": {"weights": str(tmp_path / "model.safetensors")}}
    ((accuracy, loss),) = ranks(1).run(pipeline_jobs.scored, again)
    assert accuracy == rows[-1]["test_accuracy_ratio"]
    assert loss == pytest.approx(rows[-1]["test_loss"], rel=1e-5)
    for row in rows[1:]:
        assert 0 < row["pipeline_idle_ratio"] < 1
        assert row["pipeline_ideal_idle_ratio"] == pytest.approx(2 / 5)
        assert row["wire_bytes_total"]["pipeline"] > 0
        assert row["parameters"] == 6090 and row["frozen_parameters_ratio"] == 0


def test_without_a_pipeline_rows_know_none(tmp_path):
    rows = ranks(2).run(jobs.life, BASE, str(tmp_path))[0]
    names = {name for row in rows for name in (*row, *row["wire_bytes_total"])}
    assert not [name for name in names if "pipeline" in name]


def test_a_model_is_assembled_one_stage_at_a_time():
    found = ranks(3).run(pipeline_jobs.assembled, BASE | {"parallel": THREE})
    assert [stage["names"] for stage in found] == [10, 0, 0]
    assert found[0]["received"] == max(stage["own"] for stage in found)


@pytest.mark.parametrize(
    "rows,told",
    [
        (30, []),
        (32, ["batches of 32 have 2 microbatches, not 3; set schedule.batch_size=30 or 33"]),
        (1, ["batches of 1 have 1 microbatch, not 3; set schedule.batch_size=3"]),
    ],
)
def test_fewer_microbatches_than_were_asked_for_are_told(rows, told):
    schedule = {"batch_size": rows, "phases": [{"steps": 2}]}
    tree = BASE | {"parallel": THREE | {"pipeline": 2}, "schedule": schedule}
    assert ranks(2).run(pipeline_jobs.notices, tree) == [told, []]


def test_metrics_tell_which_stage_a_rank_has():
    found = ranks(4).run(pipeline_jobs.labels, BASE | {"parallel": {"pipeline": 2}})
    assert [labels["stage"] for labels in found] == ["0", "1", "0", "1"]
    assert [labels["rank"] for labels in found] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("split", ["parameters", "layers", "cost"])
def test_however_it_is_cut_it_computes_the_same(split):
    parallel = THREE | {"split": split}
    results = ranks(3).run(pipeline_jobs.trained, BASE | {"parallel": parallel}, 2)
    (alone,) = ranks(1).run(pipeline_jobs.trained, BASE, 2)
    for name, values in alone["model"].items():
        assert np.abs(results[0]["model"][name] - values).max() < 1e-6


def test_all_stages_end_with_the_same_words_if_one_diverges(tmp_path):
    tree = BASE | {"parallel": THREE, "optimizer": {"lr": 1e25}, "rounds": 4}
    ends = ranks(3).run(pipeline_jobs.how_it_ends, tree, str(tmp_path))
    assert ends[0].startswith("diverged in round ") and len(set(ends)) == 1


def test_a_run_ends_whose_clients_differ_on_one_stage_only(tmp_path):
    """All ranks evaluate the last average, though it moves only what one of them has."""
    tree = BASE | {
        "rounds": 4,
        "parallel": {"pipeline": 2},
        "sync": {"name": "gwpf", "threshold": 0.02, "ema": 0.8},
        "evaluation": {"model": "agreed"},
    }
    differ = ranks(2).run(pipeline_jobs.ended, tree, str(tmp_path))
    assert sorted(differ) == [False, True]


def test_batch_statistics_of_microbatches_are_refused(tmp_path):
    tree = BASE | {"parallel": THREE, "network": "with_norm"}
    ends = ranks(3).run(pipeline_jobs.how_it_ends, tree, str(tmp_path))
    assert len(set(ends)) == 1 and "3, but the model has BatchNorm" in ends[0]


@pytest.mark.parametrize("buffers", ["mean", "local"])
def test_batch_statistics_of_whole_batches_are_those_of_one_device(buffers):
    evaluation = {"bn_batches": 0 if buffers == "local" else 4}
    tree = BASE | {"model": {"buffers": buffers}, "evaluation": evaluation}
    results = ranks(3).run(pipeline_jobs.normalised, tree | {"parallel": {"pipeline": 3}}, 3)
    (alone,) = ranks(1).run(pipeline_jobs.normalised, tree, 3)
    assert results[0]["model"].keys() == alone["model"].keys()
    for name, values in alone["model"].items():
        assert np.abs(results[0]["model"][name] - values).max() < 1e-5, name
    assert {r["accuracy"] for r in results} == {alone["accuracy"]}
    assert {r["dense"] for r in results} == {alone["dense"]}


def test_dropout_has_a_stream_of_its_own_on_each_stage():
    one, other = ranks(2).run(
        pipeline_jobs.masks, BASE | {"parallel": {"pipeline": 2, "layers": [2, 2]}}
    )
    assert len(one) == len(other) > 1
    for mine, theirs in zip(one, other, strict=True):
        assert mine.shape == theirs.shape and not np.array_equal(mine, theirs)


def test_dropout_is_repeatable_and_the_same_for_a_stage_of_all_replicas():
    tree = BASE | {"parallel": {"pipeline": 2, "microbatches": 2}}
    first, again = (ranks(4).run(pipeline_jobs.dropped, tree, 2) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(first[0], first[2]) and np.array_equal(first[1], first[3])


# ------------------------------------------------------------------ real processes


@pytest.mark.slow
@pytest.mark.parametrize("which", [1, 5])
def test_a_sigterm_at_one_rank_of_six_stops_all_and_the_run_resumes_to_the_same_bits(
    which, tmp_path
):
    whole = Group(tmp_path / "whole", SIX)
    whole.finish()
    stopped = Group(tmp_path / "stopped", SIX)
    wait_for_round(stopped, 2)
    stopped.ranks[which].send_signal(signal.SIGTERM)
    assert set(stopped.wait()) == {143}
    rounds = {stopped.record(rank)["round"] for rank in range(6)}
    assert len(rounds) == 1 and 2 <= rounds.pop() < 12
    Group(tmp_path / "stopped", SIX, "--resume").finish()
    assert _results(tmp_path / "stopped") == _results(tmp_path / "whole")


@pytest.mark.slow
def test_a_killed_run_of_six_resumes_to_the_same_bits(tmp_path):
    Group(tmp_path / "whole", SIX).finish()
    killed = Group(tmp_path / "killed", SIX)
    wait_for_round(killed, 7)
    for process in killed.ranks:
        process.kill()
    killed.wait()
    Group(tmp_path / "killed", SIX, "--resume").finish()
    assert _results(tmp_path / "killed") == _results(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "interleaved"])
def test_a_lost_stage_ends_all_ranks_with_a_sentence(schedule, tmp_path):
    parallel = THREE | {"schedule": schedule, "pipeline": 2}
    tree = SIX | {"ranks": 4, "rounds": 100_000, "parallel": parallel, "clients": 6}
    if schedule == "interleaved":
        tree |= {"model": {"name": "lenet"}, "data": {"resize": 28}}
    group = Group(tmp_path / "run", tree)
    wait_for_round(group, 2)
    lost, start = 2, time.monotonic()
    os.kill(group.ranks[lost].pid, signal.SIGKILL)
    codes = group.wait()
    assert time.monotonic() - start < patience.seconds(60)
    others = [rank for rank in range(4) if rank != lost]
    assert [codes[rank] for rank in others] == [1, 1, 1]
    told = [str(group.record(rank)["message"]) for rank in others]
    assert all(text.startswith("lost another rank: ") for text in told), told
    assert "Full Schedule" not in (tmp_path / "run" / "output").read_text()


def _results(out):
    model, rows = results(out)
    for row in rows:
        row.pop("pipeline_idle_ratio")
    return model, rows
