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
    hidden: float = 0.0  # seconds of training in which an exchange was under way (overlap.py)
    inner: list[float] = field(default_factory=list)  # seconds of phases within each open one

    def begin_round(self) -> None:
        """Forget the clients of the last round."""
        self.turns.clear()
        self.began = dict(self.seconds)

    def since_begin(self, name: str) -> float:
        """Return the seconds spent in a phase in this round."""
        return self.seconds[name] - self.began[name]

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time of the `with` block for a phase, without that of phases within it."""
        start = time.perf_counter()
        self.inner.append(0.0)
        yield
        if self.device.type == "cuda":  # else its queued work would count for a later phase
            torch.cuda.synchronize(self.device)
        spent = time.perf_counter() - start
        self.seconds[name] += spent - self.inner.pop()
        if self.inner:
            self.inner[-1] += spent

    @contextmanager
    def turn(self, client: int) -> Iterator[None]:
        """Count the time of the `with` block for local training, and for a client."""
        before = self.seconds["local"]
        with self.phase("local"):
            yield
        self.turns[client] = self.turns.get(client, 0.0) + self.seconds["local"] - before

    @property
    def training(self) -> float:
        """Seconds spent in all phases except evaluation."""
        return sum(s for name, s in self.seconds.items() if name != "evaluate")
