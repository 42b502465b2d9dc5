"""Runs that are killed or stopped and resumed end with the same bits as one that never was.

Real processes throughout, one per rank, SIGKILL and SIGTERM.
"""

import json
import signal
import socket
import time
from pathlib import Path

import pytest

from tests import patience
from tests.starts import Rank
from trainer.config.load import load

TIMES = (
    "time_seconds",
    "federated_time_seconds",
    "phase_seconds_total",
    "rank_idle_seconds_total",
)
EVERYTHING = {
    "seed": 5,
    "rounds": 30,
    "clients": 5,
    "ranks": 2,
    "participation": 0.8,
    "data": {"augment": True, "partition": {"name": "dirichlet"}},
    "optimizer": {"momentum": 0.9, "state": "keep", "lr": 0.02},
    "algorithm": {"server": {"momentum": 0.5}},
    "schedule": {"phases": [{"steps": 6}]},
    "sync": {"name": "gwpf", "threshold": 0.3, "ema": 0.8},
    "evaluation": {"every": 3},
    "checkpoint": {"every": 7},
}


class Group:
    """The ranks of one run, started as a pod would start them: by environment variables."""

    def __init__(self, out: Path, tree: dict[str, object], *more: str) -> None:
        experiment, _ = load(tree)
        out.mkdir(exist_ok=True)
        (out / "experiment.json").write_text(experiment.canonical())
        words = [str(out / "experiment.json"), "--out", str(out), *more]
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        group["WORLD_SIZE"] = str(experiment.ranks)
        self.out = out
        self.ranks = [
            Rank(words, group | {"RANK": str(rank)}, out / "output")
            for rank in range(experiment.ranks)
        ]

    def wait(self) -> list[int]:
        return [process.wait(patience.seconds(90)) for process in self.ranks]

    def finish(self) -> None:
        assert set(self.wait()) == {0}, (self.out / "output").read_text()

    def record(self, rank: int) -> dict[str, object]:
        return json.loads((self.out / "logs" / f"rank-{rank}.json").read_text())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_round(group: Group, number: int) -> None:
    path, deadline = group.out / "metrics.jsonl", time.monotonic() + patience.seconds(60)
    while not path.exists() or len(path.read_text().splitlines()) < number:
        running = all(process.poll() is None for process in group.ranks)
        assert running and time.monotonic() < deadline, (group.out / "output").read_text()
        time.sleep(0.005)


def results(out: Path) -> tuple[bytes, list[dict[str, object]]]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    rows = [{k: v for k, v in row.items() if k not in TIMES} for row in rows]
    for row in rows:  # a checkpoint's own agreement check is traffic that only its run had
        row["wire_bytes_total"].pop("control")
    # a run that is killed between its last checkpoint and its end tests its model once more
    rows[-1]["wire_bytes_total"].pop("evaluation")
    return (out / "model.safetensors").read_bytes(), rows


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    Group(out, EVERYTHING).finish()
    model, rows = results(out)
    assert rows[-1]["labelled_frozen_ratio"] > 0, "nothing froze: resuming was not put to a test"
    return model, rows


def test_killed_in_the_middle(undisturbed, tmp_path):
    out = tmp_path / "run"
    group = Group(out, EVERYTHING)
    wait_for_round(group, 18)
    for process in group.ranks:
        process.kill()
    assert group.wait() == [-signal.SIGKILL] * 2
    assert not (out / "model.safetensors").exists()
    Group(out, EVERYTHING, "--resume").finish()
    assert results(out) == undisturbed


@pytest.mark.slow
def test_stopped_by_sigterm(undisturbed, tmp_path):
    out = tmp_path / "run"
    group = Group(out, EVERYTHING)
    wait_for_round(group, 10)
    group.ranks[1].terminate()  # one rank is told, all stop after the same round
    assert group.wait() == [143, 143]
    records = [group.record(rank) for rank in (0, 1)]
    assert [(r["status"], r["exit"]) for r in records] == [("stopped", 143)] * 2
    assert records[0]["round"] == records[1]["round"] >= 10
    Group(out, EVERYTHING, "--resume").finish()
    assert results(out) == undisturbed


def test_a_lost_rank_ends_the_others_with_one_line(tmp_path):
    group = Group(tmp_path / "run", EVERYTHING | {"rounds": 100_000})
    wait_for_round(group, 5)
    group.ranks[1].kill()
    assert group.wait() == [1, -signal.SIGKILL]
    survivor = group.record(0)
    assert (survivor["status"], survivor["exit"]) == ("failed", 1)
    assert survivor["message"].startswith("lost another rank: ")
    assert "\n" not in survivor["message"]
    assert group.record(1)["status"] == "running"


def test_a_checkpoint_of_another_experiment_is_refused(tmp_path):
    short = EVERYTHING | {"ranks": 1, "rounds": 8}
    Group(tmp_path / "run", short).finish()
    other = Group(tmp_path / "run", short | {"seed": 6}, "--resume")
    assert other.wait() == [2]
    assert other.record(0)["message"] == (
        "seed: is 5 in this run; 6 would make it a different experiment; start a new run, or "
        "resume with --allow-changed seed"
    )
