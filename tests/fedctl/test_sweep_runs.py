"""Real sweeps: several runs at a time, one that fails, stops and continuations, nothing left."""

import json
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedctl import bundled
from fedctl.report import runs
from tests.fedctl.processes import Start, ended, processes_of, wait_for_round
from trainer.config.load import load

WriteRun = Callable[..., Path]

TINY = {"rounds": 2, "clients": 2, "schedule.phases": [{"steps": 1}]}


def write(folder: Path, **tree: Any) -> None:
    (folder / "mine.yaml").write_text(yaml.safe_dump({"base": "fedavg-digits", **tree}))


def states(result: dict[str, Any]) -> dict[str, str]:
    return {run["run"]: run["state"] for run in result["sweep"]}


@pytest.mark.slow
def test_a_failing_run_stops_no_other_and_is_made_up_for(start: Start, tmp_path: Path) -> None:
    data = {"data.name": "npz", "data.path": "data.npz", "data.partition": {"name": "iid"}}
    entries = [{"seed": 1}, {"seed": 2}, {"name": "broken", "rounds": 1, "seed": 1, **data}]
    write(tmp_path, set=TINY | {"evaluation.every": 1}, runs=entries)
    (tmp_path / "data.npz").write_bytes(b"not a zip file")
    command = ("sweep", "mine.yaml", "--jobs", 2, "--out", "out", "-o", "json")
    code, stdout, stderr = ended(start(*command))
    result = json.loads(stdout)
    assert code == 1
    *_, failure, last = stderr.splitlines()
    assert failure.startswith("broken,seed=1: data.path: ")
    assert last == "error: 1 of 3 runs failed; run the same command again to resume"
    good = [name for name, state in states(result).items() if state == "finished"]
    assert states(result) == dict.fromkeys(good, "finished") | {"broken,seed=1": "failed"}

    # The report is on the two that finished, and says what their files say.
    folders = [tmp_path / run["folder"] for run in result["sweep"] if run["run"] in good]
    accuracies = [
        json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["test_accuracy_ratio"]
        for folder in folders
    ]
    (group,) = result["groups"]
    assert group["seeds"] == [1, 2]
    assert group["test_accuracy_ratio"]["mean"] == pytest.approx(statistics.mean(accuracies))
    assert group["test_accuracy_ratio"]["std"] == pytest.approx(statistics.stdev(accuracies))
    written = {path.name for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert written == {".lock", "report.html", "report.png", "table.csv", "table.md"}
    assert processes_of(tmp_path) == []


def test_only_what_is_missing_runs_and_what_failed_starts_anew(
    start: Start, tmp_path: Path, write_run: WriteRun
) -> None:
    done = write_run("out/clients=10")
    failed = tmp_path / "out/clients=2"
    failed.mkdir()
    experiment, _ = load("fedavg-digits", sets=["rounds=10", "clients=2"], presets=bundled.PRESETS)
    (failed / "experiment.json").write_text(experiment.canonical())
    (failed / "metrics.jsonl").write_text("what a failed run left\n")
    before = [(path, path.stat().st_mtime_ns) for path in sorted(done.rglob("*"))]
    write(tmp_path, set={"rounds": 10}, grid={"clients": [10, 2]})
    code, stdout, stderr = ended(start("sweep", "mine.yaml", "--out", "out"))
    assert code == 0, stderr
    assert stdout.startswith("2 runs in out, 1 of them finished before; ")
    assert [line[:3] for line in stdout.splitlines() if ": accuracy" in line] == ["1/1"]
    assert [(path, path.stat().st_mtime_ns) for path in sorted(done.rglob("*"))] == before
    assert runs.read(failed).finished and len(runs.read(failed).rows) == 10


@pytest.mark.slow
def test_ctrl_c_stops_all_and_the_same_command_goes_on(start: Start, tmp_path: Path) -> None:
    write(tmp_path, set={"rounds": 40}, seeds=3)
    command = ("sweep", "mine.yaml", "--jobs", 2)
    process = start(*command)
    out = tmp_path / "runs/mine"
    wait_for_round(out / "seed=1", 1)
    process.send_signal(signal.SIGINT)
    code, stdout, stderr = ended(process)
    assert code == 130 and "stopping after the round of each run" in stdout
    assert stderr == ("stopped; 0 of 3 runs have finished; run the same command again to resume\n")
    assert 0 < runs.checkpoint_round(out / "seed=1") < 40
    assert processes_of(tmp_path) == [] and not (out / "seed=3").exists()

    code, stdout, _ = ended(start(*command, "--dry-run", "-o", "json"))
    plan = json.loads(stdout)["runs"]
    states = [run["state"] for run in plan]
    assert states[0] == "interrupted" and states[2] == "new"
    assert states[1] in ("interrupted", "new")  # the second one may not have come to a round

    write(tmp_path, set={"rounds": 40}, seeds=2)
    code, stdout, stderr = ended(start(*command))
    assert code == 0, stderr
    for seed in (1, 2):
        found = runs.read(out / f"seed={seed}")
        assert found.finished and [row["round"] for row in found.rows] == list(range(1, 41))
    assert "fedavg-digits" in (out / "table.md").read_text()


@pytest.mark.slow
def test_ctrl_c_twice_kills_all(start: Start, tmp_path: Path) -> None:
    write(tmp_path, set={"rounds": 5000}, seeds=2)
    process = start("sweep", "mine.yaml", "--jobs", 2)
    for seed in (1, 2):
        wait_for_round(tmp_path / f"runs/mine/seed={seed}", 1)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    code, _, stderr = ended(process)
    assert code == 130 and stderr.startswith("stopped; 0 of 2 runs") and stderr.count("\n") == 1
    assert processes_of(tmp_path) == []


@pytest.mark.slow
def test_failing_fast_starts_no_other(start: Start, tmp_path: Path) -> None:
    broken = {"data.name": "npz", "data.path": "data.npz", "data.partition": {"name": "iid"}}
    (tmp_path / "data.npz").write_bytes(b"not a zip file")
    write(tmp_path, set=TINY, runs=[{"name": "broken", **broken}, {"name": "good"}])
    code, _, stderr = ended(start("sweep", "mine.yaml", "--jobs", 1, "--fail-fast"))
    assert code == 1 and stderr.splitlines()[0].startswith("broken: data.path: ")
    assert not (tmp_path / "runs/mine/good").exists()
