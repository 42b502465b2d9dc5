"""Ranks as a pod starts them, forked from a process that has imported torch.

Each is `python -m trainer` in all but its start, which costs milliseconds, not the seconds that a
fresh interpreter needs. That is started by tests/engine/test_world.py, and wherever fedctl does.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.ranks import MP


class Rank:
    """One rank; of subprocess.Popen what tests of ranks use."""

    def __init__(self, words: list[str], environment: Mapping[str, str], output: Path) -> None:
        """Its words, the variables that it has besides this process's, where what it says goes."""
        self.words = words
        given = {**os.environ, **environment}
        self.process = MP.Process(target=_main, args=(given, words, str(output)), daemon=True)
        self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired(self.words, timeout or 0)
        return self.process.exitcode

    def kill(self) -> None:
        """SIGKILL, unless it has ended."""
        self.process.kill()

    def terminate(self) -> None:
        self.process.terminate()

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def _main(environment: dict[str, str], words: list[str], output: str) -> None:
    with open(output, "ab", buffering=0) as said:
        for stream in (1, 2):
            os.dup2(said.fileno(), stream)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.argv = ["trainer", *words]
    from trainer.__main__ import main

    sys.exit(main())
