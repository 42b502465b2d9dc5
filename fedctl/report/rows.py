"""One row of metrics: reading it from a line of metrics.jsonl, and what a report asks of it.

The only place where a line becomes a row. What it returns has the types of the catalogue, so no
reader checks again. Files are read in runs.py.
"""

import json
from typing import Any

from trainer.metrics import catalog

Row = dict[str, Any]

NEEDED = (
    "round",
    "time_seconds",
    "payload_bytes_total",
    "wire_bytes_total",
    "dense_equivalent_bytes_total",
)
TESTED = ("federated_time_seconds", "messages_total")  # in each row with a test
LINK_MBITS = 100  # of the link that a report computes a time for
MOST = 1e300  # what is larger overflows in a mean or a square
# May be NaN or infinite: then training has diverged.
DIVERGE = ("train_loss", "test_loss", "gradient_variance", "gradient_deviation_ratio")


def parse(line: bytes) -> Row | None:
    """Return the row in a line, None if it is not one."""
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and _fits(row) else None


def _fits(row: Row) -> bool:
    needed = NEEDED + (TESTED if tested(row) or row.get("final") else ())
    if row.get("final") not in (None, True, False) or (row.get("final") and not tested(row)):
        return False
    if any(row.get(name) is None for name in needed) or type(row["round"]) is not int:
        return False
    if tested(row) and "test_loss" not in row:  # null if it is not finite
        return False
    return row["round"] >= 0 and all(
        _measured(row[metric.name], metric)
        for metric in catalog.CATALOG
        if row.get(metric.name) is not None
    )


def _measured(value: Any, metric: catalog.Metric) -> bool:
    if metric.labels:
        return isinstance(value, dict) and all(map(_number, value.values()))
    return _number(value) or (metric.name in DIVERGE and type(value) is float)


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= MOST  # NaN is not, either


def uploaded(row: Row, kind: str | None = None) -> int:
    """Return the bytes that clients had to upload so far: of one kind, or all but the tests'."""
    totals: dict[str, int] = row["payload_bytes_total"]
    if kind is not None:
        return totals.get(kind, 0)
    return catalog.uploaded(totals)


def wire(row: Row) -> int:
    """Bytes that the ranks have sent each other so far, of all kinds; 0 on a single rank."""
    return sum(row["wire_bytes_total"].values())


def over_link(row: Row, experiment: dict[str, Any]) -> float | None:
    """Return the seconds that the run would have taken so far over a slow link; None on one rank.

    Computed: the measured seconds, which are without tests, plus the time that each rank's share of
    the bytes takes at LINK_MBITS, but for those of tests and those within nodes, whose links are
    fast. It leaves out latency, and all that a real network adds. None also if exchanges are hidden
    behind training, of which the bytes say nothing.
    """
    ranks = experiment.get("ranks", 1)
    sent = wire(row) - sum(
        row["wire_bytes_total"].get(kind, 0) for kind in ("evaluation", catalog.NODE)
    )
    if ranks < 2 or experiment.get("sync", {}).get("overlap"):
        return None
    return float(row["time_seconds"] + 8 * sent / ranks / (1e6 * LINK_MBITS))


def saved(row: Row) -> float:
    """Return the share of FedAvg's upload that was not sent; negative if more was sent."""
    dense = row["dense_equivalent_bytes_total"]
    return 1 - uploaded(row) / dense if dense else 0.0


def frozen(row: Row) -> float:
    """Return the share of parameters that the round did not send; 0 before the first one."""
    return row.get("frozen_parameters_ratio") or 0.0


def idle(row: Row) -> tuple[float, float] | None:
    """Return the idle share of a pipeline's ranks, and the ideal one; None: it has no pipeline."""
    measured, ideal = row.get("pipeline_idle_ratio"), row.get("pipeline_ideal_idle_ratio")
    return None if measured is None or ideal is None else (measured, ideal)


def tested(row: Row) -> bool:
    """Return whether the model was evaluated in this row."""
    return row.get("test_accuracy_ratio") is not None


def perplexity(row: Row) -> float | None:
    """Return the perplexity of a language model; None for other models, or if it diverged."""
    return row.get("test_perplexity")
