"""Laws of exchanges that are under way while clients train, on real gloo processes."""

import time
from typing import Any

import numpy as np
import pytest
import torch

from tests import bounds, checkpoint_jobs, overlap_jobs, pipeline_jobs
from tests.jobs import experiment_run, history, life
from tests.products import sampled
from tests.ranks import ranks
from trainer.config.errors import ConfigError
from trainer.config.load import load
from trainer.exchange.books import Books
from trainer.exchange.group import Group, Work
from trainer.exchange.message import Delivery, Places
from trainer.exchange.overlap import Overlap
from trainer.exchange.reductions.reduction import Handle

OUTER = {"name": "fedavg", "server": {"lr": 0.7, "momentum": 0.9, "nesterov": True}}
BASE: dict[str, Any] = {
    "seed": 4,
    "clients": 2,
    "data": {"partition": {"name": "dirichlet", "alpha": 1.0}},
    "schedule": {"batch_size": 32, "phases": [{"steps": 3}]},
}


def overlapping(steps: int = 2, fragments: int = 3, alpha: float = 0.5) -> dict[str, Any]:
    sync = {"name": "streaming", "fragments": fragments, "overlap": steps, "alpha": alpha}
    return {"sync": sync}


@pytest.mark.parametrize("steps,fragments", sampled([1, 2, 9], [1, 3]))
def test_the_mean_arrives_when_it_is_due_and_is_mixed(steps, fragments):
    """Of plain averaging: after `due` local steps x_p is the mean of what clients had at the end
    of the round before, and each client's y_p is alpha of its own and the rest of that."""
    tree, due = BASE | bounds.DOUBLE | overlapping(steps, fragments, 0.25), min(steps, 3)
    results = ranks(2).run(overlap_jobs.watched, tree, 4)
    for result in results:
        assert all(
            np.array_equal(a, b)
            for a, b in zip(result["anchors"], results[0]["anchors"], strict=True)
        )
        assert [int(row["taken"]) for row in result["arrivals"]] == [due, due, due, 3]
        for row in result["arrivals"]:
            mask, before, after = row["mask"], row["before"], row["after"]
            expected = 0.25 * before + 0.75 * row["anchor"]
            rounding = bounds.of_sums(4, np.abs(before).max() + 1, bounds.FP64)
            assert np.abs(after - expected)[mask].max() < rounding
            assert np.array_equal(after[~mask], before[~mask])
            assert np.abs(before - row["anchor"])[mask].max() > 1e-6, "nothing to mix"
    first = results[0]
    assert np.array_equal(first["anchors"][0], first["anchors"][1])  # the first is under way
    for number, row in enumerate(first["arrivals"]):
        mask = row["mask"]
        mean = sum(result["weight"] * result["own"][number] for result in results)
        rounding = bounds.of_sums(6, np.abs(mean).max() + 1, bounds.FP64)
        assert np.abs(row["anchor"] - mean)[mask].max() < rounding
        assert np.array_equal(row["anchor"][~mask], first["anchors"][number + 1][~mask])


def test_a_client_that_keeps_all_of_its_own_trains_as_if_there_were_no_rounds():
    alone = BASE | bounds.DOUBLE | {"clients": 1}
    (kept,) = ranks(1).run(overlap_jobs.watched, alone | overlapping(1, alpha=1.0), 5)
    full = ranks(1).run(history, alone, 5)[0]
    for own, row in zip(kept["own"], full[1:], strict=False):
        assert np.abs(own - row["anchor"]).max() < bounds.of_runs(full)


@pytest.mark.parametrize("codec", ["fp32", "int8"])
def test_when_an_exchange_is_over_changes_no_bit(codec):
    tree = BASE | {"algorithm": OUTER, "codec": {"name": codec}} | overlapping()
    polled, due = (ranks(2).run(overlap_jobs.watched, tree, 5, polls) for polls in (True, False))
    for one, other in zip(polled, due, strict=True):
        for key in ("anchors", "own"):
            assert all(np.array_equal(a, b) for a, b in zip(one[key], other[key], strict=True))
        assert other["hidden"] == 0
    plain = tree | {"sync": tree["sync"] | {"overlap": 0, "alpha": 0.5}}
    sent = ranks(2).run(history, plain, 5)[0]
    total = sum(result["payload"][-1] for result in polled)
    assert total == sum(row["payload"]["values"] for row in sent[1:])


@pytest.mark.parametrize("codec,fragments", sampled(["fp32", "int4"], [1, 3]))
def test_resuming_with_an_exchange_under_way_changes_no_bit(codec, fragments, tmp_path):
    tree = BASE | {"algorithm": OUTER, "codec": {"name": codec}, "checkpoint": {"keep": 3}}
    tree |= {"optimizer": {"name": "adamw", "state": "keep"}} | overlapping(2, fragments)
    results = ranks(2).run(
        checkpoint_jobs.through_and_resumed, experiment_run, tree, str(tmp_path), 6
    )
    assert [result["differing"] for result in results] == [[], []]


def test_a_run_ends_with_what_was_under_way(tmp_path):
    tree = BASE | {"rounds": 4, "algorithm": OUTER} | overlapping()
    rows = ranks(2).run(life, tree, str(tmp_path))[0]
    assert [row["round"] for row in rows] == [1, 2, 3, 4, 4] and rows[-1]["final"]
    assert rows[-1]["test_loss"] != rows[-2]["test_loss"]
    assert all(row["hidden_exchange_seconds_total"] >= 0 for row in rows)
    assert (tmp_path / "model.safetensors").exists()


def test_a_stop_is_known_to_all_in_the_next_round():
    known = ranks(2).run(pipeline_jobs.told_to_stop, BASE | overlapping(), 1)
    assert known == [[False, False, True]] * 2


def test_pipelines_overlap_as_single_ranks_do():
    tree = BASE | {"algorithm": OUTER} | overlapping()
    results = ranks(4).run(pipeline_jobs.trained, tree | {"parallel": {"pipeline": 2}}, 5)
    alone = ranks(2).run(pipeline_jobs.trained, tree, 5)[0]
    stages = [next(r["own"] for r in results if r["stage"] == stage) for stage in (0, 1)]
    assert np.array_equal(np.concatenate(stages), alone["own"])
    for name, values in alone["model"].items():
        assert np.array_equal(results[0]["model"][name], values)


# ------------------------------------------------------------------ what does not fit


@pytest.mark.parametrize(
    "changes,line",
    [
        (
            {"ranks": 1},
            "sync.overlap: an exchange is under way while one client trains on its rank",
        ),
        ({"participation": 0.5}, "sync.name: streaming has means arrive in the next round"),
        ({"stragglers": {"unreachable": 0.5}}, "and stragglers.unreachable is 0.5; set"),
        ({"algorithm": {"name": "scaffold"}}, "and scaffold's clients need those of this round; "),
        ({"algorithm": {"name": "fedga"}}, "algorithm.name=fedavg or fedprox"),
    ],
)
def test_what_cannot_overlap_is_refused_in_a_line(changes, line):
    load(BASE | {"ranks": 2} | overlapping())
    with pytest.raises(ConfigError, match=line):
        load(BASE | {"ranks": 2} | overlapping() | changes)
    load(BASE | {"ranks": 2} | {"sync": {"name": "streaming"}} | changes)


# ------------------------------------------------------------------ what was hidden


class Slow(Work):
    """A collective that is over at a time."""

    def __init__(self, clock: list[float], at: float) -> None:
        super().__init__()
        self.clock, self.at = clock, at

    def over(self) -> bool:
        return self.clock[0] >= self.at


def test_hidden_are_the_seconds_of_training_until_all_collectives_are_over(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    overlap = Overlap(5, Group(Books(), torch.device("cpu"), alone=True))

    def exchange():
        yield Slow(now, 11.5)
        yield Slow(now, 13.0)
        return Delivery({}, Places(1), stop=True)

    assert overlap.depart(Handle(exchange())) is False
    now[0] = 10.0  # what was measured, saved and evaluated in between is no training
    overlap.resumes()
    hidden = []
    for _ in range(5):
        now[0] += 1.0
        hidden.append(overlap.poll())
    assert hidden == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert overlap.pending and overlap.land().stop and not overlap.pending
    assert overlap.depart(Handle(exchange())) is True  # what the last one said
    overlap.resumes()  # both collectives are over by now
    now[0] += 1.0
    assert overlap.poll() == 0.0 and overlap.pending
