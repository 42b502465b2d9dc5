"""The log of a rank, and its status record; metrics are in trainer/metrics.

The record `logs/rank-K.json` is for programs: the process, how it ended and why, in one line.
"""

import logging
import os
import sys
from pathlib import Path

from trainer.files import as_json, write_atomically
from trainer.metrics.catalog import Row, uploaded

log = logging.getLogger("fedctl")


class Status:
    """The status record of this rank, written atomically at each change."""

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
        write_atomically(self.path, as_json(self.values))


def final(row: Row) -> dict[str, float]:
    """Return the result of a run from its last row, for readers without access to metrics."""
    return {
        "test_accuracy_ratio": row.test_accuracy_ratio or 0.0,
        "uploaded_bytes": uploaded(row.payload_bytes_total or {}),
        "wire_bytes": sum((row.wire_bytes_total or {}).values()),
        "dense_equivalent_bytes": row.dense_equivalent_bytes_total or 0,
    }


def start_logging(out: Path, rank: int) -> None:
    """Log to logs/rank-K.log and to stderr, with time and rank on each line."""
    form = logging.Formatter(f"%(asctime)s rank {rank}: %(message)s", "%H:%M:%S")
    for handler in (
        logging.FileHandler(out / "logs" / f"rank-{rank}.log"),
        logging.StreamHandler(sys.stderr),
    ):
        handler.setFormatter(form)
        log.addHandler(handler)
    log.setLevel(logging.INFO)
