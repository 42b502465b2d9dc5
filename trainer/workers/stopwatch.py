"""Time of a rank's own computation within what it does together with others."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Seconds of computation on a device, added up until they are read.

    Work on a GPU is only queued by the process, so events measure it there; they are read when the
    device has come to them, at the end of a round, and never waited for before.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = 0.0
        self.events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure what is computed in the `with` block."""
        if self.device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            yield
            end.record()
            self.events.append((start, end))
        else:
            began = time.perf_counter()
            yield
            self.seconds += time.perf_counter() - began

    def read(self) -> float:
        """Return the seconds since the last call."""
        for start, end in self.events:
            end.synchronize()
            self.seconds += start.elapsed_time(end) / 1000
        self.events.clear()
        total, self.seconds = self.seconds, 0.0
        return total
