"""Destinations of metrics: each rank's /metrics, metrics.jsonl in the run folder, and trackers.

No other module knows Prometheus. Values arrive as the catalogue's rows; none is computed here.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trainer.config.schema import Experiment
from trainer.files import as_json, write_atomically
from trainer.manifest import Seal
from trainer.metrics import trackers
from trainer.metrics.catalog import CATALOG, PREFIX, Row
from trainer.metrics.sink import CLOSE_SECONDS, Ended, Sink

NEEDED = {"time_seconds", "payload_bytes_total", "wire_bytes_total"}  # in each row of a run


class Exposed(Collector):
    """The latest row as Prometheus metrics, collected only when Prometheus scrapes."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        self.labels = labels
        self.row: dict[str, Any] = {}

    def update(self, row: Row) -> None:
        """Take the new values; a metric that was not measured this time keeps its last value."""
        self.row |= {name: value for name, value in vars(row).items() if value is not None}

    def collect(self) -> Iterator[Metric]:
        for metric in CATALOG:
            family = GaugeMetricFamily if metric.kind == "gauge" else CounterMetricFamily
            series = family(PREFIX + metric.name, metric.help, labels=metric.labels)
            value = self.row.get(metric.name)
            if metric.name == "info":
                series.add_metric([self.labels[label] for label in metric.labels], 1)
            elif isinstance(value, Mapping):
                for label, number in value.items():
                    series.add_metric([label], number)
            elif value is not None:
                series.add_metric([], value)
            yield series


class Recorder:
    """The recorder of one rank; `out` is the run folder if it writes metrics.jsonl, else None.

    Only the rank that does also writes to the trackers that `experiment` enables.
    """

    def __init__(
        self,
        out: Path | None,
        labels: Mapping[str, str],
        resume_round: int,
        experiment: Experiment | None = None,
        reached: Seal | None = None,
    ) -> None:
        """Begin to record; reached: how far metrics.jsonl had been written at the checkpoint."""
        self.exposed = Exposed(labels)
        self.file: BinaryIO | None = None
        self.digest, self.size = hashlib.sha256(), 0  # of what is in metrics.jsonl
        self.last: Row | None = None  # of the rounds before this start
        self.sinks: list[Sink] = []
        if out:
            rows, self.file = _reopen(out / "metrics.jsonl", resume_round, reached)
            for row in rows:
                self._count(row.encode())
            self.last = Row.of(json.loads(rows[-1])) if rows else None
            if experiment:
                self.sinks = trackers.start(
                    trackers.Scope(experiment, out, resume_round), map(json.loads, rows)
                )

    def serve(self, host: str, port: int) -> int:
        """Serve /metrics in a thread; return the port, which the system picks for 0."""
        registry = CollectorRegistry()
        registry.register(self.exposed)
        server, _ = start_http_server(port, host, registry)
        return int(server.server_port)

    def record(self, run: Row, own: Row) -> None:
        """Record a round: `run` for metrics.jsonl and trackers, `own` for this rank's /metrics."""
        self.exposed.update(run)
        self.exposed.update(own)
        values = run.values()
        if self.file:
            line = as_json(values, separators=(",", ":")).encode() + b"\n"
            self.file.write(line)
            self.file.flush()
            self._count(line)
        for sink in self.sinks:
            sink.put(values)

    def _count(self, line: bytes) -> None:
        self.digest.update(line)
        self.size += len(line)

    def reached(self) -> Seal | None:
        """Return how far metrics.jsonl has been written; it is on the disk when this returns."""
        if self.file is None:
            return None
        os.fsync(self.file.fileno())
        return Seal(self.size, self.digest.hexdigest())

    def close(self, status: Ended = "finished") -> None:
        """End with this status; trackers get some time to receive the rest."""
        if self.file:
            self.file.close()
        for sink in self.sinks:
            sink.end(status)
        until = time.monotonic() + CLOSE_SECONDS[status]
        for sink in self.sinks:
            sink.wait(until)


def _reopen(path: Path, resume_round: int, reached: Seal | None) -> tuple[list[str], BinaryIO]:
    """Drop the rows of rounds that will run again; return the others, and the file to append to.

    Without `reached`, because the file was allowed to have changed, the whole rows in it are kept:
    one of each round, the last, in the order of rounds.
    """
    content = path.read_bytes() if path.exists() and resume_round else b""
    lines = content[: reached.bytes if reached else None].decode("utf-8", "replace")
    by_round = {_round(line): line for line in lines.splitlines(keepends=True)}
    kept = [by_round[number] for number in sorted(by_round) if 0 <= number <= resume_round]
    write_atomically(path, "".join(kept))
    return kept, path.open("ab")


def _round(row: str) -> int:
    """Return the round of a row, one more for the final model's; -1 if it is no row."""
    try:
        values = json.loads(row) if row.endswith("\n") else {}
        whole = type(values["round"]) is int and values.keys() >= NEEDED
        return values["round"] + bool(values.get("final")) if whole else -1
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return -1
