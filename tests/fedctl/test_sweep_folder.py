"""What a sweep finds in its folder: it goes by digests, and loses nothing that is not its own."""

import errno
import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from fedctl.errors import UserError
from fedctl.local import machine
from fedctl.sweep import jobs
from tests.fedctl.checkpoints import write_checkpoint

Invoke = Callable[..., Result]
WriteRun = Callable[..., Path]

FILE = "{base: fedavg-digits, set: {rounds: 10}, grid: {%s}}"


def states(result: Result) -> dict[str, tuple[str, str]]:
    assert result.exit_code == 0, result.output
    runs = json.loads(result.stdout)["runs"]
    return {run["run"]: (run["folder"], run["state"]) for run in runs}


@pytest.fixture
def sweep(fedctl: Invoke, tmp_path: Path) -> Callable[[str], Result]:
    """A dry run of a sweep over this grid, in the folder where runs are written."""

    def dry_run(grid: str) -> Result:
        (tmp_path / "mine.yaml").write_text(FILE % grid)
        return fedctl("sweep", "mine.yaml", "--out", "out", "--dry-run", "-o", "json")

    return dry_run


def test_a_run_is_found_by_its_digest_under_another_name(
    sweep: Callable[[str], Result], write_run: WriteRun
) -> None:
    write_run("out/fedavg-digits")
    assert states(sweep("clients: [10, 20]")) == {
        "clients=10": ("out/fedavg-digits", "finished"),
        "clients=20": ("out/clients=20", "new"),
    }


def test_unfinished_runs_go_on_or_start_anew(
    sweep: Callable[[str], Result], write_run: WriteRun
) -> None:
    folder = write_run("out/fedavg-digits", finished=False)
    assert states(sweep("clients: [10]")) == {"fedavg-digits": ("out/fedavg-digits", "failed")}
    write_checkpoint(folder, 3)
    assert states(sweep("clients: [10]")) == {"fedavg-digits": ("out/fedavg-digits", "interrupted")}


def test_what_is_not_of_the_sweep_is_refused_and_kept(
    sweep: Callable[[str], Result], write_run: WriteRun, tmp_path: Path
) -> None:
    folder = write_run("out/clients=20")
    before = sorted((path, path.read_bytes()) for path in folder.rglob("*") if path.is_file())
    result = sweep("clients: [20, 30]")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "error: out/clients=20: holds another run (its clients is 10, not 20); "
        "name another --out, or move it away\n"
    )
    after = sorted((path, path.read_bytes()) for path in folder.rglob("*") if path.is_file())
    assert after == before

    (folder / "experiment.json").write_text("{")
    assert "is not an experiment of this fedctl" in sweep("clients: [20, 30]").stderr
    (tmp_path / "out/clients=30").write_text("mine")
    assert "out/clients=30: exists and is not a run" in sweep("clients: [30, 40]").stderr


def test_a_finished_sweep_only_writes_its_report(
    fedctl: Invoke, tmp_path: Path, write_run: WriteRun
) -> None:
    write_run("out/fedavg-digits")
    (tmp_path / "mine.yaml").write_text(
        "{base: fedavg-digits, set: {rounds: 10}, report: {x: [rounds], columns: "
        "{Algorithm: algorithm.name, N: clients, C: participation, Message count: messages, "
        "Test accuracy: accuracy}}}"
    )
    result = fedctl("sweep", "mine.yaml", "--out", "out", "-o", "json")
    assert result.exit_code == 0, result.output
    assert [run["state"] for run in json.loads(result.stdout)["sweep"]] == ["finished"]
    # by rounds, and the traffic; nothing is frozen
    assert (tmp_path / "out/report.html").read_text().count("<svg") == 2


def test_the_cpus_are_those_of_the_affinity_and_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "OWN_CGROUP", tmp_path / "own")
    (tmp_path / "own").write_text("0::/pods/mine\n")
    assert machine.cpus() == 8
    (tmp_path / "pods/mine").mkdir(parents=True)
    (tmp_path / "pods/mine/cpu.max").write_text("max 100000\n")
    assert machine.cpus() == 8
    (tmp_path / "pods/cpu.max").write_text("350000 100000\n")
    assert machine.cpus() == 3
    (tmp_path / "own").write_text("2:cpu,cpuacct:/\n1:memory:/x\n")
    (tmp_path / "cpu,cpuacct").mkdir()
    (tmp_path / "cpu,cpuacct/cpu.cfs_quota_us").write_text("50000\n")
    (tmp_path / "cpu,cpuacct/cpu.cfs_period_us").write_text("100000\n")
    assert machine.cpus() == 1


def test_one_sweep_at_a_time_in_a_folder(tmp_path: Path) -> None:
    with jobs._alone(tmp_path / "out"):
        with pytest.raises(UserError) as error, jobs._alone(tmp_path / "out"):
            pass
        assert str(error.value).endswith(f"out: is in use by process {os.getpid()}; wait for it")
    with jobs._alone(tmp_path / "out"):
        pass


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then a sweep runs as a run does, without a lock."""

    def no_locks(*_words: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with jobs._alone(tmp_path / "out"):
        assert (tmp_path / "out").is_dir()


def test_a_sweep_that_was_stopped_before_it_kept_anything_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), jobs._alone(tmp_path / "new"):
        raise KeyboardInterrupt
    (tmp_path / "old").mkdir()
    with jobs._alone(tmp_path / "old"):
        pass
    with jobs._alone(tmp_path / "kept"):
        (tmp_path / "kept/report.html").write_text("")
    assert {path.name for path in tmp_path.iterdir()} == {"old", "kept"}
