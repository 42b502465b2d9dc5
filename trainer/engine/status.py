"""The log of a rank, and its status record; metrics are in trainer/metrics.

The record `logs/rank-K.json` is for programs: the process, how it ended and why, in one line.
"""

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path

from trainer.files import as_json, write_atomically
from trainer.metrics.catalog import Row, uploaded

log = logging.getLogger("fedctl")
logging.raiseExceptions = False  # a log that cannot be written must not change how a run ends

SCHEDULES = "torch.distributed.pipelining.schedules"  # logs a whole schedule if a rank is lost
RECORD = 4096  # bytes of a status record


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
            "notices": [],
            "resumed_at": None,
        }
        self.write()

    def write(self, **values: object) -> None:
        """Change values, and write the record; on a full disk over the old one, in its place.

        The record is padded, so that its end still finds room there: how a run failed must be
        told also if it failed for lack of room.
        """
        self.values |= values
        record = f"{as_json(self.values):<{RECORD - 1}}\n".encode()
        try:
            write_atomically(self.path, record, lasting=False)  # it is written often
        except OSError:
            with suppress(OSError), self.path.open("r+b") as file:
                file.write(record)
                file.truncate(len(record))


def final(row: Row) -> dict[str, float]:
    """Return the result of a run from its last row, for readers without access to metrics."""
    perplexity = row.test_perplexity
    return {
        "test_accuracy_ratio": row.test_accuracy_ratio or 0.0,
        **({} if perplexity is None else {"test_perplexity": perplexity}),
        "uploaded_bytes": uploaded(row.payload_bytes_total or {}),
        "wire_bytes": sum((row.wire_bytes_total or {}).values()),
        "dense_equivalent_bytes": row.dense_equivalent_bytes_total or 0,
    }


def show_log(rank: int) -> None:
    """Log to stderr, with time and rank on each line."""
    _log_to(logging.StreamHandler(sys.stderr), rank)
    log.setLevel(logging.INFO)
    logging.getLogger(SCHEDULES).setLevel(logging.CRITICAL)


def keep_log(out: Path, rank: int) -> None:
    """Log to logs/rank-K.log as well."""
    _log_to(logging.FileHandler(out / "logs" / f"rank-{rank}.log"), rank)


def _log_to(handler: logging.Handler, rank: int) -> None:
    handler.setFormatter(logging.Formatter(f"%(asctime)s rank {rank}: %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
