"""Suspending, resuming and cancelling a run that exists. Creates no object."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedctl.cluster.api import errors
from fedctl.cluster.change.submit import name_of
from fedctl.cluster.status import job, snapshot
from fedctl.cluster.status.snapshot import PARTS
from fedctl.cluster.watch import follow
from fedctl.cluster.watch.waiting import WaitTimeout
from fedctl.errors import RunError

if TYPE_CHECKING:
    from fedctl.cluster.api.client import Cluster

CLAIM = "PersistentVolumeClaim"
Object = Mapping[str, Any]


@dataclass(frozen=True)
class Removed:
    """What a cancel has removed, and what it kept."""

    removed: Sequence[str]
    kept: Sequence[str]


# --- cancel ---------------------------------------------------------------------------------------


def parts(
    cluster: "Cluster",
    run: str,
    kinds: Sequence[str] = PARTS,
    notice: Callable[[str], None] = lambda text: None,
) -> list[Object]:
    """Return the objects of a run other than its job; pass hidden kinds to `notice`."""
    found: list[Object] = []
    for kind in kinds:
        try:
            found += cluster.list(kind, labels=snapshot.selector(run))
        except errors.KindMissing:
            continue
        except errors.Forbidden as error:  # also for a kind that is not installed
            if cluster.serves(kind):
                notice(f"objects of {run} were kept: {error}")
    return found


def end(
    cluster: "Cluster",
    run: str,
    wait: bool,
    report: Callable[[str], None],
    timeout: float | None = None,
) -> str | None:
    """Delete the job, wait until its ranks have saved and ended; return its name, if it existed.

    The other objects must stay until then, because ranks find each other through their Service.
    Raises WaitTimeout if ranks still exist after `timeout` seconds, as on a lost node.
    """
    mine = job.find(cluster, run)
    if mine is not None:
        api, uid = mine["apiVersion"], mine["metadata"]["uid"]
        cluster.delete(mine["kind"], run, "Foreground", api_version=api, uid=uid)
    ended = name_of(mine) if mine else None
    if not wait:
        return ended
    alive: list[str] = []
    for seen in follow.snapshots(cluster, run, timeout):
        alive = [_place(pod) for pod in seen.pods if not _over(pod)]
        if seen.job is None and not alive:
            return ended
        if alive:
            report(f"ranks still saving a checkpoint: {len(alive)}")
    raise WaitTimeout(
        f"{run}: still being deleted after {timeout:g} s: {', '.join(alive)}; if their node is "
        "lost, run `kubectl delete pod --force`, then `fedctl cancel` again"
    )


def remove(
    cluster: "Cluster", run: str, purge: bool, notice: Callable[[str], None] = lambda text: None
) -> Removed:
    """Delete what is left of a run; its PVCs, which hold the run folder, only with `purge`."""
    removed = []
    claims = parts(cluster, run, [CLAIM])
    for part in [*parts(cluster, run, notice=notice), *(claims if purge else [])]:
        meta = part["metadata"]
        api = part["apiVersion"]
        if cluster.delete(part["kind"], meta["name"], api_version=api, uid=meta.get("uid")):
            removed.append(name_of(part))
    return Removed(removed, [] if purge else [claim["metadata"]["name"] for claim in claims])


def _place(pod: Object) -> str:
    return f"{pod['metadata']['name']} on {pod['spec'].get('nodeName') or 'no node'}"


def _over(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


# --- suspend and resume ---------------------------------------------------------------------------


def suspend(cluster: "Cluster", run: str) -> str:
    """Suspend the run: its ranks save a checkpoint and its pods are deleted; return a summary."""
    return _switch(cluster, run, off=True)


def resume(cluster: "Cluster", run: str) -> str:
    """Let a suspended run start again; return a summary."""
    return _switch(cluster, run, off=False)


def _switch(cluster: "Cluster", run: str, off: bool) -> str:
    mine = job.required(cluster, run)
    if over := job.ended(mine):
        verb = "suspend" if off else "resume"
        raise RunError(f"{run} has {over.word}: there is nothing to {verb}")
    if queue := (mine["metadata"].get("labels") or {}).get(job.QUEUE):
        return _switch_workload(cluster, run, mine, queue, off)
    if job.suspended(mine) == off:
        return f"{run} is already suspended" if off else f"{run} is not suspended"
    spec: dict[str, Any] = {"suspend": off}
    if mine["kind"] == "PyTorchJob":
        spec = {"runPolicy": spec}
    cluster.patch(mine["kind"], run, {"spec": spec})
    if off:
        return f"{run} is suspended: its ranks save a checkpoint and end"
    return f"{run} is resumed: it continues from its last checkpoint, if it has saved one"


def _switch_workload(cluster: "Cluster", run: str, mine: Object, queue: str, off: bool) -> str:
    """Switch the run's Workload, because Kueue reverts changes to the job's own switch."""
    try:
        workload = snapshot.workload_of(cluster, mine)
    except errors.KindMissing:
        workload = None
    if workload is None:
        if off and job.suspended(mine):
            return f"{run} is already suspended: queue {queue} has not admitted it"
        raise RunError(
            f"{run} was sent to queue {queue}, which has no entry for it yet; resuming it outside "
            "the queue would bypass the quota; `fedctl status` shows why it waits"
        )
    active = workload["spec"].get("active", True)
    if active != off:
        return f"{run} is already suspended" if off else f"{run} is in queue {queue}, not suspended"
    cluster.patch("Workload", workload["metadata"]["name"], {"spec": {"active": not off}})
    if off:
        return (
            f"{run} is suspended: queue {queue} releases its quota, and its ranks save a checkpoint"
        )
    return f"{run} is in queue {queue} again, and continues when it is admitted"
