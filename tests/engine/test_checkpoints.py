"""Checkpoints: what is damaged is never used, what is whole is, and what changed is told."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import checkpoint_jobs, jobs
from tests.ranks import ranks
from trainer import manifest
from trainer.config.errors import ConfigError, EnvironmentFault
from trainer.engine import checkpoint, plan
from trainer.engine.parts import RankState
from trainer.engine.round import run_round
from trainer.metrics.recorder import Recorder
from trainer.storage.folder import Folder

TREE = checkpoint_jobs.KEEPING
FLIPS, QUICK = 60, 12  # single bits, each of a fresh copy


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with checkpoints after rounds 1 to 3, and a row of metrics for each."""
    run = tmp_path_factory.mktemp("saved")
    rank = jobs.experiment_run(TREE)
    recorder = Recorder(run, {}, 0)
    for number in (1, 2, 3):
        run_round(rank, number)
        rank.ledger.settle()
        row = jobs.row(rank, number)
        recorder.record(row, row)
        checkpoint.save(rank, number, Folder(run / manifest.FOLDER), recorder.reached())
    recorder.close()
    return run


@pytest.fixture
def run(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "run"))


def restored(run: Path, *allowed: str, **changes: Any) -> tuple[RankState, int]:
    """A rank after it has resumed there, and the round from which it goes on."""
    rank = jobs.experiment_run(TREE | changes)
    metrics = run / "metrics.jsonl"
    done, reached = checkpoint.restore(rank, Folder(run / manifest.FOLDER), metrics, allowed)
    if done:
        Recorder(run, {}, done, reached=reached).close()
    return rank, done


def rows(run: Path) -> list[int]:
    return [json.loads(line)["round"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_newest_is_used(run: Path) -> None:
    rank, done = restored(run)
    assert (done, rank.notices, rows(run)) == (3, [], [1, 2, 3])
    assert int(rank.ledger.tally.steps) == 3 * 4 * 5


def files(checkpoint_folder: Path) -> list[Path]:
    return sorted(path for path in checkpoint_folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "seed", [*range(QUICK), *(pytest.param(n, marks=pytest.mark.slow) for n in range(QUICK, FLIPS))]
)
def test_a_flipped_bit_is_seen_and_the_older_one_used(run: Path, seed: int) -> None:
    draws = random.Random(seed)
    newest = manifest.found(run / manifest.FOLDER)[0]
    path = draws.choice(files(newest))
    content = bytearray(path.read_bytes())
    place = draws.randrange(len(content))
    content[place] ^= 1 << draws.randrange(8)
    path.write_bytes(content)
    rank, done = restored(run)
    assert done == 2 and rows(run) == [1, 2]
    (notice,) = rank.notices
    assert notice.startswith("checkpoint round-000003 is passed over: ")
    assert path.name in notice
    assert (run / manifest.FOLDER / "damaged-round-000003").is_dir()
    assert restored(run)[1] == 2  # and not once more


@pytest.mark.parametrize("how", ["cut", "gone", "empty"])
def test_every_file_must_be_there_and_whole(saved: Path, tmp_path: Path, how: str) -> None:
    names = [p.relative_to(saved) for p in files(manifest.found(saved / manifest.FOLDER)[0])]
    assert len(names) == 4 + 4  # the model, agreed, a rank's, the manifest; four clients'
    for at, name in enumerate(names):
        run = Path(shutil.copytree(saved, tmp_path / str(at)))
        content = (run / name).read_bytes()
        (run / name).unlink()
        if how != "gone":
            (run / name).write_bytes(content[:-1] if how == "cut" else b"")
        assert restored(run)[1] == 2, name


def test_lost_rows_mean_an_older_checkpoint_which_has_all_of_its_own(run: Path) -> None:
    metrics = run / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[: -(len(metrics.read_bytes()) // 2)])
    rank, done = restored(run)
    assert done == 1 and rows(run) == [1]
    assert "metrics.jsonl was cut: it has " in rank.notices[0]


def test_a_changed_row_is_seen(run: Path) -> None:
    metrics = run / "metrics.jsonl"
    content = bytearray(metrics.read_bytes())
    content[-5] ^= 1
    metrics.write_bytes(content)
    assert restored(run)[1] == 2


def test_a_torn_line_and_rows_of_rounds_that_run_again_go(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"round":4}\n{"rou')
    assert restored(run)[1] == 3 and rows(run) == [1, 2, 3]


def test_lost_rows_may_be_allowed(run: Path) -> None:
    metrics = run / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[:-9])
    rank, done = restored(run, "metrics")
    assert (done, rank.notices, rows(run)) == (3, [], [1, 2])


def test_if_none_is_whole_nothing_is_trained(run: Path) -> None:
    for path in manifest.found(run / manifest.FOLDER):
        (path / manifest.MODEL).unlink()
    with pytest.raises(EnvironmentFault, match=r"no checkpoint in .* can be used \(.*is missing\)"):
        restored(run)
    assert len(manifest.found(run / manifest.FOLDER)) == 3  # a person may restore the files


def test_without_a_checkpoint_a_run_begins(tmp_path: Path) -> None:
    assert restored(tmp_path)[1] == 0


def test_a_folder_without_manifest_was_never_finished(run: Path) -> None:
    (run / manifest.FOLDER / "round-000003" / manifest.NAME).unlink()
    rank, done = restored(run)
    assert done == 2
    assert rank.notices == ["checkpoint round-000003 is passed over: manifest.json is missing"]
    (run / manifest.FOLDER / "round-000001" / manifest.NAME).unlink()
    assert len(restored(run)[0].notices) == 1, "an older one is not missed"


def test_another_format_is_passed_over(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "FORMAT", 99)
    with pytest.raises(EnvironmentFault, match="was saved by another version of fedctl"):
        restored(run)


def test_operation_is_no_part_of_what_is_learned(run: Path) -> None:
    operation = {
        "rounds": 20,
        "name": "another",
        "checkpoint": {"every": 2, "keep": 1},
        "metrics": {"port": None},
        "cluster": {"timeout": 5},
        "evaluation": {"every": 4},
        "client_memory": 1,
        "placement": "fixed",
    }
    rank = jobs.experiment_run(TREE | operation, run / "out")
    assert checkpoint.restore(rank, Folder(run / manifest.FOLDER))[0] == 3


@pytest.mark.parametrize(
    "change,key",
    [
        ({"seed": 2}, "seed"),
        ({"optimizer": {"momentum": 0.8, "state": "keep"}}, "optimizer.momentum"),
        ({"participation": 0.5}, "participation"),
    ],
)
def test_what_is_learned_is_told_or_allowed(run: Path, change: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{key}: is .* in this run; .* --allow-changed {key}$"):
        restored(run, **change)
    assert restored(run, key, **change)[1] == 3
    assert restored(run, key.partition(".")[0], **change)[1] == 3  # the section above


def test_fewer_rounds_than_are_done(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"^rounds: 2 is less than the 3 that the run has done"):
        restored(run, rounds=2)


def test_other_samples_are_refused_or_allowed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(task: Any) -> str:
        return "other"

    monkeypatch.setattr("trainer.tasks.images.fingerprint", other)
    with pytest.raises(ConfigError, match=r"^data: the samples are not those .*allow-changed data"):
        restored(run)
    assert restored(run, "data")[1] == 3


def test_names_sort_by_number(tmp_path: Path) -> None:
    """As texts, round-1000000 comes before round-999999, and was deleted as it was saved."""
    rank = jobs.experiment_run(TREE | {"checkpoint": {"keep": 1}, "rounds": 2_000_000})
    for number in (999_998, 999_999, 1_000_000):
        checkpoint.save(rank, number, Folder(tmp_path))
    assert [path.name for path in manifest.found(tmp_path)] == ["round-1000000"]


def test_the_ends_of_phases_stay(tmp_path: Path) -> None:
    phases = [{"rounds": 2, "steps": 1}, {"rounds": 3, "steps": 1}, {"steps": 1}]
    tree = TREE | {"checkpoint": {"keep": 1}, "schedule": {"phases": phases}}
    rank = jobs.experiment_run(tree)
    assert plan.boundaries(rank.experiment) == {2, 5}
    for number in range(1, 9):
        checkpoint.save(rank, number, Folder(tmp_path))
    assert [manifest.number_of(path) for path in manifest.found(tmp_path)] == [8, 5, 2]


def test_its_model_is_one_to_start_from(run: Path) -> None:
    weights = manifest.found(run / manifest.FOLDER)[0] / manifest.MODEL
    other = jobs.experiment_run({"seed": 9, "model": {"weights": str(weights)}})
    assert torch.equal(other.server.anchor, restored(run)[0].server.anchor)


@pytest.mark.parametrize("placement", ["dealt", "fixed"])
@pytest.mark.parametrize("before,after", [(2, 1), (1, 2), (3, 2)])
def test_another_number_of_ranks(tmp_path: Path, before: int, after: int, placement: str) -> None:
    """The counts of all ranks stay, and each client's state is where the client will train."""
    tree = TREE | {"placement": placement, "participation": 0.75}
    saved = ranks(before).run(checkpoint_jobs.saved_after, tree, 3, str(tmp_path))[0]
    found = ranks(after).run(checkpoint_jobs.resumed_for, tree, 2, str(tmp_path))
    for other in found:
        assert other["done"] == 3 and (other["anchor"] == saved["anchor"]).all()
        assert other["payload"] == saved["payload"]
        assert sum(other["rank_samples"]) == sum(saved["rank_samples"])
        assert len(other["rank_samples"]) == after
    kept = [client for other in found for client in other["clients"]]
    assert sorted(kept) == sorted(saved["homes"])
