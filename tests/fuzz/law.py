"""The law of every fuzz target: a result or one printable line, soon, and in bounded memory."""

import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from fedctl.commands.group import OneLine
from fedctl.errors import FedctlError
from fedctl.terminal import plain
from trainer.config.errors import ConfigError, EnvironmentFault
from trainer.manifest import Damaged

CPU_SECONDS = 20.0  # of one example: the time of this process, so others' load does not count
MEMORY_BYTES = 2 << 30  # that an example may map besides what is mapped already
ONE_LINE = (ConfigError, EnvironmentFault, FedctlError, Damaged)


class Hangs(BaseException):
    """An example took longer than it may."""


def holds(run: Callable[[], Any]) -> str:
    """Run it; return the line that it is refused with, empty if it is not."""
    with limited():
        try:
            run()
        except ONE_LINE as error:
            line = OneLine(str(error), 2).line()
            assert plain(line) == line and "\n" not in line and len(line) > 8, repr(line)
            return line
    return ""


@contextmanager
def limited() -> Iterator[None]:
    """Bound the CPU time and the memory of what happens meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGVTALRM, _hang)
    if sys.platform == "linux":  # elsewhere the limit is not kept
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(
            resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY_BYTES, hard)
        )
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _hang(number: int, frame: FrameType | None) -> None:
    raise Hangs(f"not done after {CPU_SECONDS:g} s of CPU time")
