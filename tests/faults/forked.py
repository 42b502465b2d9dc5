"""The ranks of a run that is killed often: all of them at once, with one folder."""

import subprocess
import time
from contextlib import suppress
from pathlib import Path

from tests import patience
from tests.starts import Rank

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
        self.ranks = [
            Rank(arguments, group | {"RANK": str(rank)}, out / "output") for rank in range(size)
        ]

    @property
    def running(self) -> bool:
        return any(rank.poll() is None for rank in self.ranks)

    def kill(self, rank: int) -> None:
        """SIGKILL, unless it has ended."""
        self.ranks[rank].kill()

    def end(self) -> list[int]:
        """Kill those that do not end by themselves soon, as fedctl does after its grace."""
        until = time.monotonic() + GRACE_SECONDS
        for rank in self.ranks:
            with suppress(subprocess.TimeoutExpired):
                rank.wait(max(0.0, until - time.monotonic()))
            rank.kill()
        return self.wait()

    def wait(self) -> list[int]:
        """The exit codes; a rank that does not end is killed, and the test fails."""
        late = []
        for rank in self.ranks:
            try:
                rank.wait(patience.seconds(60))
            except subprocess.TimeoutExpired:
                late.append(rank)
        for rank in late:
            rank.kill()
        assert not late, self.output()
        return [rank.wait() for rank in self.ranks]

    def output(self) -> str:
        return (self.out / "output").read_text("utf-8", "replace")[-4000:]
