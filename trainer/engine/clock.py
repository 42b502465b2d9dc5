"""Time of this rank: by phase since the start of the run, and by client in the round.

The times of all ranks are compared in ledger.py.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from trainer.metrics.catalog import PHASES


@dataclass
class Clock:
    """Seconds spent in each phase, and by each client in the current round."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    turns: dict[int, float] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)  # seconds as the round began

    def begin_round(self) -> None:
        """Forget the clients of the last round."""
        self.turns.clear()
        self.began = dict(self.seconds)

    def since_begin(self, name: str) -> float:
        """Return the seconds spent in a phase in this round."""
        return self.seconds[name] - self.began[name]

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time of the `with` block for a phase."""
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":  # else its queued work would count for a later phase
            torch.cuda.synchronize(self.device)
        self.seconds[name] += time.perf_counter() - start

    @contextmanager
    def turn(self, client: int) -> Iterator[None]:
        """Count the time of the `with` block for local training, and for a client."""
        start = time.perf_counter()
        with self.phase("local"):
            yield
        self.turns[client] = self.turns.get(client, 0.0) + time.perf_counter() - start

    @property
    def training(self) -> float:
        """Seconds spent in all phases except evaluation."""
        return sum(s for name, s in self.seconds.items() if name != "evaluate")
