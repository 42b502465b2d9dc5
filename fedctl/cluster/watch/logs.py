"""Logs of a run's ranks, followed through restarts and lost connections.

Each start of a rank's container has a thread that reads its log; the lines meet in one queue.
"""

import queue
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fedctl.cluster.api import errors
from fedctl.cluster.status import job, ranks
from fedctl.cluster.status.ranks import Rank
from fedctl.errors import FedctlError, RunError, UserError

if TYPE_CHECKING:
    from fedctl.cluster.api.client import Cluster

POLL_SECONDS = 2.0  # between two lists of the run's pods
PAUSE_SECONDS = 1.0  # before a log is requested again
# A silent log is requested again: its connection may have died unnoticed.
SILENCE_SECONDS = 120
MOST_WAITING = 10_000  # lines in the queue; beyond it the ranks' threads wait
STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d) ?(.*)", re.S)


@dataclass(frozen=True)
class Line:
    """A line of a rank's log, as written."""

    rank: int
    pod: str
    text: str


@dataclass(frozen=True)
class Part:
    """The part of a log to read: the last `tail` lines, the last `since` seconds."""

    tail: int | None = None
    since: float | None = None


def _ignore(text: str) -> None:
    """Do nothing."""


def follow(
    cluster: "Cluster",
    run: str,
    only: Collection[int] | None = (0,),
    part: Part | None = None,
    notice: Callable[[str], None] = _ignore,
) -> Iterator[Line]:
    """Yield the lines of these ranks (None: all) as they are written, until the run has ended.

    Waits for pods that do not exist yet, continues with those that replace a pod, and reports to
    `notice` once why a rank has no log.
    """
    streams, reported, heard = _Streams(cluster), "", time.monotonic()
    seen: set[tuple[str, int]] = set()
    try:
        while True:
            try:
                mine = job.find(
                    cluster, run
                )  # first, so that pods that it still creates are found below
                found = ranks.newest(ranks.of_run(cluster, run))
                heard = time.monotonic()
            except FedctlError as error:
                if not errors.passing(error) or time.monotonic() - heard > errors.TIMEOUT_SECONDS:
                    raise
                yield from streams.lines(POLL_SECONDS)
                continue
            now = {k: rank for k, rank in found.items() if only is None or k in only}
            for rank in now.values():
                if rank.has_log and rank.incarnation not in seen and not streams.busy(rank.rank):
                    # Only the first log of a rank is limited to the part.
                    streams.start(rank, part if part and not streams.knows(rank.rank) else Part())
                    seen.add(rank.incarnation)
            over = mine is None or job.ended(mine) is not None
            if over:
                streams.over.set()
            if over and not streams.alive():
                yield from streams.lines(0)
                return
            why = "" if over else _why_silent(mine, now, run)
            if why and why != reported:
                notice(why)
                reported = why
            yield from streams.lines(POLL_SECONDS)
    finally:
        streams.stop()


def read(
    cluster: "Cluster",
    run: str,
    only: Collection[int] | None = (0,),
    part: Part | None = None,
    previous: bool = False,
) -> Iterator[Line]:
    """Yield the log of these ranks so far; `previous`: before their last restart."""
    part, found = part or Part(), ranks.of_run(cluster, run)
    now = ranks.newest(found)
    if not now:
        mine = job.required(cluster, run)
        ended = job.ended(mine)
        gone = f"it has {ended.word} and its pods were deleted" if ended else job.why_no_pods(mine)
        raise RunError(f"{run}: no logs: {gone}")
    wanted = sorted(now) if only is None else sorted(only)
    if missing := [str(rank) for rank in wanted if rank not in now]:
        raise UserError(
            f"--rank {missing[0]}: {run} has no pod of this rank now; its ranks: "
            f"{', '.join(map(str, sorted(now)))}"
        )
    for number in wanted:
        rank, before = now[number], previous
        if previous and not rank.restarts:
            older = [other for other in found if other.rank == number and other is not rank]
            if not older:
                raise UserError(f"--previous: rank {number} of {run} has not been restarted")
            rank, before = older[-1], False  # its pod was replaced, not its container restarted
        if not rank.has_log and not before:
            if only is None:
                continue  # the others may have a log
            raise RunError(f"{run}: rank {number} has no log yet: {rank.why_waiting()}; -f waits")
        for text in cluster.logs(
            rank.name,
            str(rank.container["name"]),
            tail=part.tail,
            since=part.since,
            previous=before,
        ):
            yield Line(number, rank.name, text)


def _why_silent(mine: "job.Object | None", now: dict[int, Rank], run: str) -> str:
    if mine is not None and not now:
        return f"{run} waits: {job.why_no_pods(mine)}"
    waiting = [(k, rank.why_waiting()) for k, rank in sorted(now.items()) if not rank.has_log]
    return f"rank {waiting[0][0]} waits: {waiting[0][1]}" if waiting else ""


class _Streams:
    """Threads that read logs, at most one per rank."""

    def __init__(self, cluster: "Cluster") -> None:
        self._cluster = cluster
        self._lines: queue.Queue[Line] = queue.Queue(MOST_WAITING)
        self._threads: dict[int, threading.Thread] = {}
        self._stopped = threading.Event()
        self.over = threading.Event()  # the run has ended: no log grows any more
        self._problem: Exception | None = None

    def start(self, rank: Rank, part: Part) -> None:
        """Read the log of this start of a rank's container to its end."""
        thread = threading.Thread(target=self._read, args=(rank, part), daemon=True)
        self._threads[rank.rank] = thread
        thread.start()

    def knows(self, rank: int) -> bool:
        """Return whether a log of this rank has been read before."""
        return rank in self._threads

    def busy(self, rank: int) -> bool:
        """Return whether a log of this rank is being read."""
        return rank in self._threads and self._threads[rank].is_alive()

    def alive(self) -> bool:
        """Return whether any log is being read."""
        return any(map(self.busy, self._threads))

    def stop(self) -> None:
        """Stop all threads."""
        self._stopped.set()

    def lines(self, seconds: float) -> Iterator[Line]:
        """Yield the lines that arrive within this many seconds, or until all threads have ended."""
        ends = time.monotonic() + seconds
        busy = self.alive()
        while True:
            if self._problem:
                raise self._problem
            left = ends - time.monotonic()
            try:
                yield (
                    self._lines.get(timeout=min(left, 0.1))
                    if left > 0
                    else (self._lines.get_nowait())
                )
            except queue.Empty:
                if left <= 0 or (busy and not self.alive()):
                    return

    def _read(self, rank: Rank, part: Part) -> None:
        try:
            for text in incarnation(self._cluster, rank, part, self._stopped, self.over):
                line = Line(rank.rank, rank.name, text)
                while not self._stopped.is_set():
                    try:
                        self._lines.put(line, timeout=PAUSE_SECONDS)
                        break
                    except queue.Full:
                        continue
        except Exception as error:  # raised by the thread that has the terminal
            self._problem = error


def incarnation(
    cluster: "Cluster", rank: Rank, part: Part, stopped: threading.Event, over: threading.Event
) -> Iterator[str]:
    """Yield the log of one start of a container, from the given part on, no line twice."""
    last, repeated = "", 0  # the newest stamp, and how many lines have it
    while not stopped.is_set():
        first, whole, last_look = not last, True, over.is_set()
        read, skip = last, repeated  # lines that arrive again after a break
        try:
            for line in cluster.logs(
                rank.name,
                str(rank.container["name"]),
                follow=True,
                tail=part.tail if first else None,
                since=part.since if first else None,
                since_time=None if first else f"{last[:19]}Z",
                timestamps=True,
                silence=SILENCE_SECONDS,
            ):
                stamp, text = _split(line)
                if stamp and (stamp < read or (stamp == read and skip)):
                    skip -= stamp == read
                    continue
                read = ""  # from here on all is new, though stdout and stderr may be out of order
                if stamp > last:
                    last, repeated = stamp, 1
                elif stamp == last:
                    repeated += 1
                yield text
        except (errors.NotFound, errors.Refused):
            return  # the pod or its container was deleted
        except FedctlError as error:
            if not errors.passing(error):
                raise
            whole = False  # the log was cut off, and there may be more
        if whole and (last_look or not _still(cluster, rank)):
            return
        stopped.wait(PAUSE_SECONDS)


def _still(cluster: "Cluster", rank: Rank) -> bool:
    """Return whether this start of the container is still running."""
    try:
        pod = cluster.get("Pod", rank.name)
    except FedctlError as error:
        if not errors.passing(error):
            raise
        return True
    now = Rank(rank.rank, pod) if pod else None
    return now is not None and now.incarnation == rank.incarnation and now.running


def _split(line: str) -> tuple[str, str]:
    """Split a line into a sortable UTC stamp and its text; nodes differ in digits and time zone."""
    found = STAMP.match(line)
    if not found:
        return "", line
    moment, digits, zone, text = found.groups()
    if zone != "Z":
        there = datetime.fromisoformat(moment + zone)
        moment = there.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{moment}.{(digits or '').ljust(9, '0')}", text
