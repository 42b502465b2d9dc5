"""What surrounds the processes of a run: its folder, its requests to stop, and what they print."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest

from fedctl.errors import RunError, UserError
from fedctl.local import launch, ranks
from fedctl.local.launch import Started, Stop
from fedctl.local.preflight import Plan
from fedctl.local.progress import View
from fedctl.local.ranks import Ranks
from fedctl.report import runs
from tests.faults.scene import until
from trainer.config.schema import Experiment
from trainer.lock import Lock

WriteRun = Callable[..., Path]


def failing(error: BaseException) -> Callable[..., NoReturn]:
    def fail(*_words: Any) -> NoReturn:
        raise error

    return fail


@pytest.mark.parametrize("error", [RunError("no loopback"), OSError(errno.EAGAIN, "too many")])
@pytest.mark.parametrize("existed", [False, True])
def test_ranks_that_cannot_be_started_leave_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, existed: bool
) -> None:
    out = tmp_path / "out"
    if existed:
        out.mkdir()
    monkeypatch.setattr(ranks.Ranks, "_process", failing(error))
    with pytest.raises(RunError):
        Started(Plan(Experiment(), out))
    assert list(tmp_path.rglob("*")) == ([out] if existed else [])


def test_where_they_cannot_resume_the_run_is_as_it_was(
    monkeypatch: pytest.MonkeyPatch, write_run: WriteRun
) -> None:
    folder = write_run("out")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(ranks.Ranks, "_process", failing(RunError("no loopback")))
    with pytest.raises(RunError, match="no loopback"):
        Started(Plan(Experiment(), folder, resume=True))
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    after.pop(folder / ".lock")
    assert after == before


@pytest.mark.parametrize("others", [False, True])
def test_a_folder_that_cannot_be_locked_is_left_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: bool
) -> None:
    def lock(folder: Path) -> NoReturn:
        if others:
            (folder / "theirs").write_text("a run that has begun in the meantime")
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(launch, "Lock", lock)
    with pytest.raises(UserError, match="cannot be written: Too many open files"):
        Started(Plan(Experiment(), tmp_path / "out"))
    left = [path.name for path in tmp_path.rglob("*")]
    assert sorted(left) == (["out", "theirs"] if others else [])


@pytest.fixture
def heeding() -> Iterator[None]:
    """These tests heed the signals, whatever they were started with."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("heeding")
@pytest.mark.parametrize(
    ("sent", "requests"),
    [
        ([signal.SIGINT], 1),
        ([signal.SIGINT, signal.SIGTERM], 2),
        ([signal.SIGHUP, signal.SIGHUP], 1),  # of the shell and of the kernel, for one terminal
        ([signal.SIGINT, signal.SIGHUP], 1),
        ([signal.SIGHUP, signal.SIGTERM], 2),
    ],
)
def test_requests_to_stop(sent: list[signal.Signals], requests: int) -> None:
    with Stop() as stop:
        for number in sent:
            os.kill(os.getpid(), number)
        assert stop.requests == requests


@pytest.mark.usefixtures("heeding")
def test_what_is_ignored_stays_ignored() -> None:
    """As after `nohup`."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.requests == 0
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *scripts: str) -> Ranks:
    """Ranks that are these scripts."""
    (tmp_path / "logs").mkdir()
    lock, left = Lock(tmp_path), list(scripts)
    monkeypatch.setattr(ranks, "command", lambda *_: [sys.executable, "-c", left.pop(0)])
    try:
        return Ranks(Plan(Experiment(ranks=len(scripts)), tmp_path), lock.descriptor)
    finally:
        lock.release()


HANGS = "import time; time.sleep(600)"
KILLED = "import os; os.kill(os.getpid(), {})"


@pytest.mark.parametrize(
    ("script", "asked", "failed"),
    [
        ("raise SystemExit(0)", False, False),
        ("raise SystemExit(143)", False, False),  # another told it to stop, and it saved
        ("raise SystemExit(143)", True, False),
        ("raise SystemExit(1)", False, True),
        ("raise SystemExit(1)", True, True),
        (KILLED.format(9), True, True),
        (KILLED.format(15), False, True),
        (HANGS, True, True),  # it was asked before it had a handler: the others wait for it
    ],
)
def test_a_rank_that_fails_is_told_from_one_that_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, asked: bool, failed: bool
) -> None:
    made = started(tmp_path, monkeypatch, script)
    try:
        if script is not HANGS:
            made._processes[0].wait()
        if asked:
            made.ask_to_stop()
        made._processes[0].wait()
        assert made.ended() and made.some_failed == failed
    finally:
        made.end()


def test_a_rank_that_a_stop_kills_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had no handler yet; the other has one, and waits for it at the start of round 1."""
    waits = "import signal; signal.signal(15, lambda *_: None); open('waits', 'w')\n"
    waits += "while True: signal.pause()"
    scripts = [waits, HANGS]
    monkeypatch.setattr(ranks, "command", lambda *_: [sys.executable, "-c", scripts.pop(0)])
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.5)
    monkeypatch.chdir(tmp_path)
    run = Started(Plan(Experiment(ranks=2), tmp_path / "out"))
    try:
        until((tmp_path / "waits").exists)
        until(lambda: run.advance(View(), 1))
    finally:
        run.end()
    assert str(run.error()) == "stopped before the first round ended; nothing was kept"


def test_of_what_ranks_print_the_last_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = started(tmp_path, monkeypatch, "print('x' * 10**6); print('an Error: the last')")
    made._processes[0].wait()
    text = made.output()
    made.end()
    assert text.endswith("an Error: the last\n") and len(text) == ranks.LONGEST
    runs.output_log(tmp_path).unlink()
    assert made.output() == ""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's death")
def test_a_rank_whose_fedctl_died_before_it_could_listen_does_not_start() -> None:
    own = partial(ranks._end_with_parent, os.getpid())
    another = partial(ranks._end_with_parent, os.getppid())
    for before, code in ((own, 0), (another, -signal.SIGTERM)):
        with subprocess.Popen([sys.executable, "-c", ""], preexec_fn=before) as process:
            assert process.wait() == code
