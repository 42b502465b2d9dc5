"""The state of a run, in one word for all three backends.

Operators' conditions disagree with each other and with the pods: `Running` of a PyTorchJob means
that any rank runs. So the state comes from the pods; of the conditions only an end counts.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fedctl.cluster.status import job, ranks
from fedctl.cluster.status.ranks import Rank
from fedctl.cluster.status.snapshot import DIGEST, Snapshot

# In the order in which a run passes through them.
QUEUED = "Queued"  # suspended by Kueue
SUSPENDED = "Suspended"  # suspended by a person
PENDING = "Pending"  # not all ranks have a node
STARTING = "Starting"  # all have one, not all run
RUNNING = "Running"
RESTARTING = "Restarting"  # a rank has ended and is restarted
STOPPING = "Stopping"  # being deleted
SUCCEEDED = "Succeeded"
FAILED = "Failed"
CANCELLED = "Cancelled"  # the job was deleted; its PVCs may be left
ENDED = (SUCCEEDED, FAILED, CANCELLED)


@dataclass(frozen=True)
class RankRow:
    """A row about a rank. `message` comes from the trainer or from Kubernetes."""

    rank: int
    pod: str
    node: str
    state: str
    restarts: int
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class RunState:
    """A run's state and its details; `ready` counts the ranks that run."""

    state: str
    backend: str
    ready: int
    size: int
    digest: str
    started: datetime | None
    ended: datetime | None
    ranks: Sequence[RankRow]

    @property
    def seconds(self) -> float | None:
        """How long the run took; None before its start, or while it is running."""
        if self.started is None or self.ended is None:
            return None
        return max(0.0, (self.ended - self.started).total_seconds())


def of(seen: Snapshot) -> RunState:
    """Return the state that a snapshot shows."""
    mine = seen.job
    if mine is None:
        state = STOPPING if seen.pods else CANCELLED
        labels = _labels(seen.claims[0]) if seen.claims else {}
        return RunState(state, "", 0, 0, labels.get(DIGEST, ""), None, None, _rows(seen, 0))
    end, size = job.ended(mine), job.size(mine)
    rows = _rows(seen, size)
    return RunState(
        state=_word(seen, mine, end, rows),
        backend=mine["kind"],
        ready=sum(row.state == RUNNING for row in rows),
        size=size,
        digest=_labels(mine).get(DIGEST, ""),
        started=_started(seen, mine),
        ended=end.when if end else None,
        ranks=rows,
    )


def _word(
    seen: Snapshot, mine: Mapping[str, Any], end: job.End | None, rows: Sequence[RankRow]
) -> str:
    if mine["metadata"].get("deletionTimestamp"):
        return STOPPING
    if end:
        return SUCCEEDED if end.succeeded else FAILED
    if job.suspended(mine):
        held = seen.workload is not None and (seen.workload["spec"].get("active") is False)
        return QUEUED if seen.queue and not held else SUSPENDED
    states = [row.state for row in rows]
    if all(state in (RUNNING, SUCCEEDED) for state in states):
        return RUNNING  # the operator has not noticed yet that some have ended
    if RESTARTING in states or FAILED in states:
        return RESTARTING
    if PENDING in states:
        return PENDING if not any(row.restarts for row in rows) else RESTARTING
    return STARTING if not any(row.restarts for row in rows) else RESTARTING


def _rows(seen: Snapshot, size: int) -> list[RankRow]:
    """Return a row for each rank, including those without a pod."""
    every = ranks.of_pods(seen.pods)
    newest, taken = ranks.newest(every), Counter(rank.rank for rank in every)
    return [
        row(newest[index], taken[index] - 1)
        if index in newest
        else RankRow(index, "", "", PENDING, 0, "no pod")
        for index in sorted({*range(size), *newest})
    ]


def row(rank: Rank, earlier_pods: int = 0) -> RankRow:
    """Return the row of a rank's newest pod."""
    status = rank.pod.get("status") or {}
    end = termination(rank)
    state, reason, message = _state_of(rank, status)
    if not message and end:
        message = text_of_message(end)
    restarts = rank.restarts + earlier_pods
    return RankRow(rank.rank, rank.name, rank.node, state, restarts, reason, message)


def _state_of(rank: Rank, status: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the state, and Kubernetes' reason and message."""
    statuses = status.get("containerStatuses") or []
    mine: Mapping[str, Any] = next(
        (one for one in statuses if one["name"] == rank.container["name"]), {}
    )
    now = mine.get("state") or {}
    if status.get("phase") == "Failed" and status.get("reason"):  # Evicted and similar
        return FAILED, str(status["reason"]), str(status.get("message") or "")
    if ended := now.get("terminated"):
        word = SUCCEEDED if ended.get("exitCode") == 0 else FAILED
        return word, str(ended.get("reason") or ""), ""
    if rank.pod["metadata"].get("deletionTimestamp"):
        return STOPPING, "Terminating", ""
    if rank.running:
        return RUNNING, "", ""
    waiting = now.get("waiting") or {}
    reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    if mine.get("restartCount") or reason == "CrashLoopBackOff":
        return RESTARTING, reason, ""
    if rank.node:
        return STARTING, reason, message
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return PENDING, str(condition.get("reason") or ""), str(condition.get("message") or "")
    return PENDING, reason, message


def termination(rank: Rank) -> Mapping[str, Any] | None:
    """Return how the rank's container has ended, now or before its last restart."""
    for status in (rank.pod.get("status") or {}).get("containerStatuses") or []:
        if status["name"] == rank.container["name"]:
            now, before = status.get("state") or {}, status.get("lastState") or {}
            return now.get("terminated") or before.get("terminated")
    return None


def reported(end: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the trainer's own record of its end; empty if it left none, as when killed."""
    try:
        record = json.loads((end or {}).get("message") or "")
    except ValueError:
        return {}
    return record if isinstance(record, dict) and "rank" in record else {}


def text_of_message(end: Mapping[str, Any]) -> str:
    """Return the trainer's message, or the last log line that Kubernetes kept instead."""
    if record := reported(end):
        return str(record.get("message") or "")
    lines = str(end.get("message") or "").strip().splitlines()
    return lines[-1] if lines else ""


def final(seen: Snapshot) -> dict[str, Any]:
    """Return the run's result, from the first rank that reported it; empty before its end."""
    for _index, rank in sorted(seen.ranks.items()):
        record = reported(termination(rank))
        if record.get("status") == "finished":
            return {"rounds": record.get("round"), **(record.get("final") or {})}
    return {}


def _started(seen: Snapshot, mine: Mapping[str, Any]) -> datetime | None:
    times = [pod.get("status", {}).get("startTime") for pod in seen.pods]
    told_by = (mine.get("status") or {}).get("startTime")
    return job.when(told_by or min((time for time in times if time), default=None))


def _labels(obj: Mapping[str, Any]) -> Mapping[str, str]:
    return obj["metadata"].get("labels") or {}
