"""Ranks as a pod starts them, forked from a process that has imported torch: to be killed often.

Each is `python -m trainer` in all but its start, which costs milliseconds, not seconds.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tests import patience
from tests.ranks import MP

GRACE_SECONDS = 2.0


class Forked:
    """The ranks of one start; all have `out` in common."""

    def __init__(self, out: Path, size: int, *words: str) -> None:
        self.out = out
        out.mkdir(exist_ok=True)
        store = out / ".rendezvous"
        store.unlink(missing_ok=True)
        group = {"WORLD_SIZE": str(size), "FEDCTL_STORE": str(store)}
        arguments = [str(out / "given.json"), "--out", str(out), *words]
        self.ranks: list[Any] = []
        for rank in range(size):
            environment = group | {"RANK": str(rank)}
            process = MP.Process(target=_main, args=(environment, arguments, str(out)), daemon=True)
            process.start()
            self.ranks.append(process)

    @property
    def running(self) -> bool:
        return any(process.is_alive() for process in self.ranks)

    def kill(self, rank: int) -> None:
        """SIGKILL, unless it has ended."""
        self.ranks[rank].kill()

    def end(self) -> list[int]:
        """Kill those that do not end by themselves soon, as fedctl does after its grace."""
        until = time.monotonic() + GRACE_SECONDS
        for process in self.ranks:
            process.join(max(0.0, until - time.monotonic()))
            process.kill()
        return self.wait()

    def wait(self) -> list[int]:
        """The exit codes; a rank that does not end is killed, and the test fails."""
        for process in self.ranks:
            process.join(patience.seconds(60))
        late = [process for process in self.ranks if process.is_alive()]
        for process in late:
            process.kill()
        assert not late, self.output()
        return [process.exitcode for process in self.ranks]

    def output(self) -> str:
        return (self.out / "output").read_text("utf-8", "replace")[-4000:]


def _main(environment: dict[str, str], arguments: list[str], out: str) -> None:
    with open(f"{out}/output", "ab", buffering=0) as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    os.environ |= environment
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.argv = ["trainer", *arguments]
    from trainer.__main__ import main

    sys.exit(main())
