"""fedctl as a process of its own, for tests of real runs: start it, wait for it, leave none."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests import patience
from tests.fedctl.terminals import Terminal

ROOT = Path(__file__).parent.parent.parent
FEDCTL = [sys.executable, "-c", "from fedctl.cli import main; main(prog_name='fedctl')"]
TIMEOUT_SECONDS = patience.seconds(90)

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Start = Callable[..., "subprocess.Popen[str]"]


@contextmanager
def starting_in(tmp_path: Path) -> Iterator[Start]:
    """Starts `fedctl` in this folder; whatever is left of it at the end is killed.

    prefix: a command that starts it, such as nsenter; terminal: where it reads and writes;
    errors: where its errors go, a pipe unless it is named.
    """
    started = []

    def run(
        *words: object,
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        terminal: Terminal | None = None,
        errors: int = subprocess.PIPE,
    ) -> "subprocess.Popen[str]":
        def own() -> None:
            for number in STOPS:  # what started these tests may have been told to ignore them
                signal.signal(number, signal.SIG_DFL)
            if terminal:
                terminal.control()

        process = subprocess.Popen(
            [*prefix, *FEDCTL, *map(str, words)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
            stdin=terminal and terminal.slave,
            stdout=terminal.slave if terminal else subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=terminal is not None,
            preexec_fn=own,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()
    deadline = time.monotonic() + patience.seconds(10)  # the launcher hears of its parent's death
    while processes_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in processes_of(tmp_path):
        os.kill(pid, signal.SIGKILL)


def processes_of(folder: Path) -> list[int]:
    """Every process that has this folder in its command line."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in word for word in process.info["cmdline"] or ())
    ]


def wait_for_round(folder: Path, number: int) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        metrics = folder / "metrics.jsonl"
        if metrics.exists() and len(metrics.read_text().splitlines()) >= number:
            return
        time.sleep(0.1)
    raise AssertionError(f"no round {number} within {TIMEOUT_SECONDS:.0f} seconds")


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    stdout, stderr = process.communicate(timeout=TIMEOUT_SECONDS)
    return process.returncode, stdout, stderr
