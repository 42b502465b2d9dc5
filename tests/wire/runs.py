"""Runs of real ranks in network namespaces, and what they and their interfaces counted."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.pods import HEADERS, Pods, Sent
from tests import patience
from trainer.config.load import load

RANKS = 3
BASE: dict[str, Any] = {
    "seed": 5,
    "rounds": 6,
    "ranks": RANKS,
    "clients": 5,
    "data": {"name": "digits", "resize": 28, "partition": {"name": "dirichlet", "alpha": 1.0}},
    "model": {"name": "mnist-cnn"},  # 582,026 parameters
    "schedule": {"batch_size": 16, "phases": [{"steps": 2}]},
    "evaluation": {"every": 3},
    "checkpoint": {"every": 4},
    "metrics": {"port": None},
}
SMALL: dict[str, Any] = {"rounds": 1, "ranks": RANKS, "clients": RANKS, "metrics": {"port": None}}


@dataclass(frozen=True)
class Run:
    """The rows of metrics.jsonl, and what the interface of each rank transmitted."""

    rows: list[dict[str, Any]]
    sent: list[Sent]

    @property
    def last(self) -> dict[str, Any]:
        return self.rows[-1]

    @property
    def wire(self) -> int:
        """Bytes that the ranks counted, of all kinds."""
        return sum(self.last["wire_bytes_total"].values())

    @property
    def stream(self) -> int:
        """Bytes that the ranks' packets carried."""
        return sum(sent.stream for sent in self.sent)

    @property
    def framing(self) -> int:
        """Bytes of the headers of all packets, and of those that only acknowledge."""
        return HEADERS * sum(sent.packets for sent in self.sent)


def run(pods: Pods, tree: dict[str, Any], folder: Path) -> Run:
    experiment, _ = load(tree)
    out = folder / "out"
    sent = pods.train(experiment, out, patience.seconds(200))
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return Run(rows, sent)
