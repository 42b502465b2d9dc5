"""Waiting for a run: the states to wait for, and how the wait can end."""

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

# Target of a wait -> the states that reach it.
TARGETS = {
    "running": (RUNNING, SUCCEEDED),
    "succeeded": (SUCCEEDED,),
    "finished": (SUCCEEDED, FAILED),
    "suspended": (SUSPENDED, QUEUED),
    "deleted": (CANCELLED,),
}
Report = Callable[[Snapshot, "RunState"], None]


class TargetUnreachable(FedctlError):
    """The run can no longer reach the state: exit code 3."""

    exit_code = 3


class WaitTimeout(FedctlError):
    """The wait timed out: exit code 124, as for timeout(1)."""

    exit_code = 124


def wait(
    cluster: "Cluster", run: str, target: str, timeout: float | None, report: Report
) -> "RunState":
    """Wait for the target and return the state; raise if it can no longer be reached."""
    last, now = None, None
    for seen in follow.snapshots(cluster, run, timeout):
        now = state.of(seen)
        if now.state != CANCELLED:
            report(seen, now)
        if now.state in TARGETS[target]:
            return now
        if now.state in state.ENDED and target != "deleted":  # which can follow any end
            raise _unreached(cluster, run, target, seen, now)
        last = seen
    doing = f"it is {now.state.lower()}" if now else "its state was not read"
    why = problems.of(last, now) if last else []
    detail = f": {why[0]}" if why else ""
    raise WaitTimeout(
        f"timed out after {timeout:g} s waiting for {run} to be {target}; {doing}{detail}"
    )


def _unreached(
    cluster: "Cluster", run: str, target: str, seen: Snapshot, now: "RunState"
) -> FedctlError:
    if now.state == FAILED:
        why = problems.of(seen, now)
        return RunError(f"{run} failed" + (f": {why[0]}" if why else ""))
    if now.state == CANCELLED:
        return TargetUnreachable(f"{run}: no such run in namespace {cluster.namespace}")
    return TargetUnreachable(f"{run} has {now.state.lower()}, so it will not be {target}")
