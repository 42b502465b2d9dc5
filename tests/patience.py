"""How long tests wait for what should have happened: measured, not guessed.

Machines differ by factors, and one that does something else besides by more. Every limit in the
tests is in seconds of the machine that it was written on; `seconds` says how many these are here.
A limit only ends a wait that would else last for ever, so none is ever shorter than it was written.
"""

import os
import time

VARIABLE = "FEDCTL_TEST_PATIENCE"  # the factor, from outside or for the processes of this session
WORK_SECONDS = 0.25  # what `_work` takes where the limits were written
MOST = 10.0


def factor() -> float:
    """How many times slower this machine is, at the start of this session; at least 1.

    A fixed piece of work is timed. That takes a moment in which others may happen to rest, so the
    load of the last minute counts too.
    """
    if VARIABLE not in os.environ:
        start, used = time.perf_counter(), time.process_time()
        _work()
        slower = (time.perf_counter() - start) / WORK_SECONDS
        waiting = os.getloadavg()[0] / (os.cpu_count() or 1)  # processes for each CPU
        shared = (time.process_time() - used) / WORK_SECONDS * waiting
        os.environ[VARIABLE] = f"{min(max(slower, shared, 1.0), MOST):.1f}"
    return float(os.environ[VARIABLE])


def seconds(limit: float) -> float:
    """A limit, in seconds of this machine."""
    return limit * factor()


def text(limit: float) -> str:
    """The same as fedctl's and kubectl's options have it."""
    return f"{seconds(limit):.0f}s"


def _work() -> int:
    """As what tests do: Python, on one CPU, long enough for others to get their turns."""
    return sum(number * number % 7 for number in range(5_000_000))
