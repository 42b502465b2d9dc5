"""Owns waiting for a run: what it is waited for, and how the wait can end."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from fedctl.cluster.status import problems, state
from fedctl.cluster.status.snapshot import Snapshot
from fedctl.cluster.status.state import CANCELLED, FAILED, QUEUED, RUNNING, SUCCEEDED, SUSPENDED
from fedctl.cluster.watch import follow
from fedctl.errors import FedctlError, RunError

if TYPE_CHECKING:
    from fedctl.cluster.api.client import Cluster
    from fedctl.cluster.status.state import RunState

# What can be waited for -> the states in which it is reached.
TARGETS = {
    "running": (RUNNING, SUCCEEDED),
    "succeeded": (SUCCEEDED,),
    "finished": (SUCCEEDED, FAILED),
    "suspended": (SUSPENDED, QUEUED),
    "deleted": (CANCELLED,),
}
Report = Callable[[Snapshot, "RunState"], None]


class TargetUnreachable(FedctlError):
    """The run cannot get there any more: exit code 3."""

    exit_code = 3


class WaitTimeout(FedctlError):
    """The time that was given is over: exit code 124, as timeout(1) has it."""

    exit_code = 124


def wait(
    cluster: "Cluster", run: str, target: str, timeout: float | None, report: Report
) -> "RunState":
    """The state in which the target is reached; raises where it can't be any more."""
    last, now = None, None
    for seen in follow.snapshots(cluster, run, timeout):
        now = state.of(seen)
        if now.state != CANCELLED:
            report(seen, now)
        if now.state in TARGETS[target]:
            return now
        if now.state in state.ENDED and target != "deleted":  # which comes after every end
            raise _unreached(cluster, run, target, seen, now)
        last = seen
    doing = f"it is {now.state.lower()}" if now else "it was not asked"
    why = problems.of(last, now) if last else []
    detail = f": {why[0]}" if why else ""
    raise WaitTimeout(f"{run}: not {target} after {timeout:g} seconds; {doing}{detail}")


def _unreached(
    cluster: "Cluster", run: str, target: str, seen: Snapshot, now: "RunState"
) -> FedctlError:
    if now.state == FAILED:
        why = problems.of(seen, now)
        return RunError(f"{run} failed" + (f": {why[0]}" if why else ""))
    if now.state == CANCELLED:
        return TargetUnreachable(f"{run}: no such run in namespace {cluster.namespace}")
    return TargetUnreachable(f"{run} has {now.state.lower()}, so it will not be {target}")
