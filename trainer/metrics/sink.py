"""The thread between a run and a tracker: a slow tracker delays no round, a broken one is logged.

It knows no tracker's library. Points that a tracker misses are in metrics.jsonl, from which a
resumed run brings it up to date.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from typing import Any, Literal, NamedTuple, Protocol

Ended = Literal["finished", "stopped", "failed"]

log = logging.getLogger("fedctl")

OPEN_SECONDS = 60  # wait for a local tracker, whose start would take CPU from the first rounds
BATCH_SECONDS = 1.0  # send points of this time together: one transaction each slows fast rounds
CLOSE_SECONDS: dict[Ended, int] = {"finished": 60, "stopped": 10, "failed": 5}  # to send the rest
MOST_CHARACTERS = 200  # of a library's message in the log


class Point(NamedTuple):
    """A row of metrics for trackers: flat, without values that were not measured or not finite."""

    step: int  # the round
    final: bool  # of the final model, not of the round
    values: dict[str, float]

    @property
    def place(self) -> int:
        """The position in the run: its round, plus one for the final model."""
        return self.step + self.final


def point(row: Mapping[str, Any]) -> Point:
    """Convert a row: values by label become `name/label`, those of the final model `final/name`."""
    final = bool(row.get("final"))
    values: dict[str, float] = {}
    for name, value in row.items():
        key = f"final/{name}" if final else name
        labelled = value if isinstance(value, Mapping) else {"": value}
        for label, number in labelled.items():
            if isinstance(number, int | float) and isfinite(number) and name != "final":
                values[f"{key}/{label}" if label else key] = float(number)
    return Point(int(row["round"]), final, values)


class Tracker(Protocol):
    """A tracker's library, always called from one thread. Each call may raise, or hang."""

    remote: bool

    def open(self) -> int:
        """Begin or continue the run; return the last place that the tracker has, -1 for none."""

    def write(self, points: Sequence[Point]) -> None:
        """Add points, in the order of the run."""

    def close(self, status: Ended) -> None:
        """End the run as finished, stopped or failed."""


class Sink:
    """One tracker and the thread that feeds it; no method raises, and only open and close wait."""

    def __init__(self, key: str, new: Callable[[], Tracker], rows: Iterable[Mapping[str, Any]]):
        self.key = key
        self.status: Ended = "failed"
        self.broken = False
        self.thread: threading.Thread | None = None
        self.points: queue.SimpleQueue[Point | None] = queue.SimpleQueue()
        self.opened, self.ending = threading.Event(), threading.Event()
        for row in rows:
            self.put(row)
        try:
            tracker = new()  # here, not in the thread: an import would take CPU from the rounds
        except Exception as error:
            self._give_up(error)
            return
        self.thread = threading.Thread(target=self._run, args=[tracker], name=key, daemon=True)
        self.thread.start()
        if not tracker.remote:
            self.opened.wait(OPEN_SECONDS)

    def put(self, row: Mapping[str, Any]) -> None:
        """Queue a row of metrics."""
        if not self.broken:
            self.points.put(point(row))

    def end(self, status: Ended) -> None:
        """Let the thread send the rest; `wait` for it afterwards."""
        self.status = status
        self.points.put(None)
        self.ending.set()

    def wait(self, until: float) -> None:
        """Wait until everything is sent, or the monotonic clock reaches `until`."""
        if self.thread:
            self.thread.join(max(0.0, until - time.monotonic()))
        if self.thread and self.thread.is_alive():
            log.warning("%s: did not receive all in time; metrics.jsonl has the rest", self.key)

    def _run(self, tracker: Tracker) -> None:
        try:
            has = tracker.open()
            self.opened.set()
            points: list[Point | None] = []
            while None not in points:
                points = self._next()
                if new := [p for p in points if p and p.place > has]:
                    tracker.write(new)
            tracker.close(self.status)
        except (Exception, SystemExit) as error:
            self._give_up(error)

    def _next(self) -> list[Point | None]:
        """Return the waiting points and those that arrive shortly after; None marks the end."""
        points = [self.points.get()]
        self.ending.wait(BATCH_SECONDS)
        while not self.points.empty():
            points.append(self.points.get())
        return points

    def _give_up(self, error: BaseException) -> None:
        self.broken = True
        self.opened.set()
        what = " ".join(f"{type(error).__name__}: {error}".split())[:MOST_CHARACTERS]
        log.warning("%s: the run continues without it: %s", self.key, what)
