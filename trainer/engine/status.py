"""Owns what a rank tells about itself besides metrics: its log, and its status record.

The record `logs/rank-K.json` is for programs: who runs where, how it ended and why, in one line.
"""

import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.files import write_atomically

log = logging.getLogger("fedctl")


class Status:
    """The status record of this rank; written when something changes, and whole or not at all."""

    def __init__(self, out: Path, rank: int) -> None:
        self.path = out / "logs" / f"rank-{rank}.json"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.values: dict[str, object] = {
            "rank": rank,
            "pid": os.getpid(),
            "status": "running",
            "exit": None,
            "message": "",
            "round": 0,
            "metrics_port": None,
        }
        self.write()

    def write(self, **values: object) -> None:
        self.values |= values
        write_atomically(self.path, json.dumps(self.values))


def final(row: Mapping[str, Any]) -> dict[str, float]:
    """What a run came to, of its last row: for who reads no metrics, as a pod's last words."""
    payload = row["payload_bytes_total"]
    return {
        "test_accuracy_ratio": row["test_accuracy_ratio"],
        "uploaded_bytes": sum(n for kind, n in payload.items() if kind != "evaluation"),
        "dense_equivalent_bytes": row["dense_equivalent_bytes_total"],
    }


def start_logging(out: Path, rank: int) -> None:
    """Log to logs/rank-K.log and to stderr, each line with time and rank."""
    form = logging.Formatter(f"%(asctime)s rank {rank}: %(message)s", "%H:%M:%S")
    for handler in (
        logging.FileHandler(out / "logs" / f"rank-{rank}.log"),
        logging.StreamHandler(sys.stderr),
    ):
        handler.setFormatter(form)
        log.addHandler(handler)
    log.setLevel(logging.INFO)
