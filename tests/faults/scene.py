"""A stage for faults: `fedctl run` in a folder of its own, and what must hold whatever happens."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fedctl.report import runs
from tests import patience
from tests.engine.test_resume import results
from tests.faults.lines import fits
from tests.faults.table import TABLE, Fault
from tests.fedctl.processes import Start, ended, processes_of, wait_for_round

ENDLESS = 100_000  # rounds
End = tuple[int, str, str]
SMALL = ["clients=4", "schedule.phases.0.steps=2", "evaluation.every=4"]


def fault(name: str, quick: bool = False) -> Callable[..., Any]:
    """Mark the test of a fault of the table, which it takes as `fault`; quick: `make test` too."""
    marks = () if quick else (pytest.mark.faults,)
    return pytest.mark.parametrize("fault", [pytest.param(TABLE[name], id=name, marks=marks)])


class Scene:
    """One run, in `out` unless it is named otherwise; `prefix` starts it elsewhere, by nsenter."""

    def __init__(self, start: Start, folder: Path) -> None:
        self.start, self.folder = start, folder
        self.out, self.name = folder / "out", "out"  # as the test, and as fedctl sees it
        self.prefix: list[str] = []

    def inside(self, prefix: list[str], out: Path | None = None, name: object = None) -> None:
        """Start fedctl in other namespaces from here on; out: the run folder as seen from here."""
        self.prefix, self.name = prefix, str(name or self.out)
        self.out = out or self.out

    def run(
        self, *sets: str, rounds: int = ENDLESS, ranks: int = 2, **options: Any
    ) -> "subprocess.Popen[str]":
        """Start a run of a small experiment, with a checkpoint every third round."""
        every = ["checkpoint.every=3", f"rounds={rounds}", *SMALL, *sets]
        words = [word for text in every for word in ("--set", text)]
        out = ["--out", self.name]
        more = {"prefix": self.prefix, **options}
        return self.start("run", "fedavg-digits", "--ranks", ranks, *words, *out, **more)

    def resume(self, *words: object, **options: Any) -> "subprocess.Popen[str]":
        more = {"prefix": self.prefix, **options}
        return self.start("run", "--resume", self.name, *words, **more)

    def reach(self, number: int) -> None:
        """Wait until this round is in metrics.jsonl."""
        wait_for_round(self.out, number)

    def pid(self, rank: int) -> int:
        return next(record.pid for record in runs.ranks(self.out) if record.rank == rank)

    def signal(self, rank: int, number: signal.Signals) -> None:
        os.kill(self.pid(rank), number)

    def freeze(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)

    def kill(self, pid: int | None) -> None:
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def end(self, process: "subprocess.Popen[str]") -> End:
        """Wait for it: exit code, stdout, stderr."""
        return ended(process)

    def shows(self, fault: Fault, process: "subprocess.Popen[str]") -> str:
        """Wait for the end, which is as the table says; return what the progress said."""
        end = self.end(process)
        self.judge(fault, end)
        return end[1]

    def judge(self, fault: Fault, end: End) -> None:
        """The law of every fault: the table's line and code, no traceback, no process left."""
        code, stdout, stderr = end[0], end[1] or "", end[2]
        told = (code, stdout[-400:], stderr, self.log())
        assert code == fault.code, told
        assert "Traceback" not in stdout + stderr, told
        if fault.code == 0:
            lines = stderr.splitlines() + stdout.splitlines()
            assert not any("error" in line for line in lines), told
            assert not fault.notice or any(fits(fault.notice, line) for line in lines), told
        else:
            assert any(fits(line, stderr.removesuffix("\n")) for line in fault.all_seen), told
        if fault.code >= 0:
            assert processes_of(self.folder) == [], told

    def log(self) -> str:
        """The last of what the ranks have printed, for whoever reads a failed test."""
        path = runs.output_log(self.out)
        return path.read_text("utf-8", "replace")[-2000:] if path.exists() else "(no output)"

    def finishes(self, *words: object, **options: Any) -> str:
        """Resume, to the end."""
        code, stdout, stderr = ended(self.resume(*words, **options))
        assert code == 0, (stderr, self.log())
        return stdout


def until(what: Callable[[], Any], limit: float = 60) -> Any:
    """Wait until something holds; return it."""
    deadline = time.monotonic() + patience.seconds(limit)
    while not (value := what()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)
    return value


def bits(out: Path) -> tuple[bytes, list[dict[str, Any]]]:
    """The final model, and the rows without times and control bytes."""
    return results(out)


def rows(out: Path) -> list[int]:
    """The rounds in metrics.jsonl."""
    return [json.loads(line)["round"] for line in (out / "metrics.jsonl").read_text().splitlines()]
