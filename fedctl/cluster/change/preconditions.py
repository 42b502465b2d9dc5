"""Checks before a submit that need the cluster. Sends nothing of the run."""

from typing import TYPE_CHECKING, Any

from fedctl.cluster.api import errors, kinds
from fedctl.cluster.status import job
from fedctl.cluster.status.snapshot import DIGEST
from fedctl.errors import UserError

if TYPE_CHECKING:
    from fedctl.chart.values import Release
    from fedctl.cluster.api.client import Cluster

Object = dict[str, Any]


def check(cluster: "Cluster", release: "Release") -> None:
    """Raise a UserError for faults that would otherwise show long after the submit."""
    values = release.values
    if values.queue.kind == "kueue":
        _check_queue(cluster, values.queue.name)
    if values.queue.kind == "volcano" and not cluster.api_versions(kinds.VOLCANO):
        # Pods for a missing scheduler stay pending without any message.
        remedy = kinds.BROUGHT_BY[kinds.VOLCANO]
        raise UserError(f"--queueing volcano: the cluster has no Volcano; {remedy}")
    for which in ("runs", "data"):
        volume = getattr(values.storage, which)
        if volume.kind == "claim" and not _there(cluster, "PersistentVolumeClaim", volume.claim):
            raise UserError(
                f"storage.{which}.claim: namespace {cluster.namespace} has no claim "
                f"{volume.claim}; create it, or set storage.{which}.kind to new"
            )
    if job.find(cluster, release.name):
        return  # submit compares its objects
    kept = _there(cluster, "PersistentVolumeClaim", f"{release.name}-runs")
    if isinstance(kept, dict) and values.storage.runs.kind == "new":
        if kept["metadata"].get("deletionTimestamp"):
            raise UserError(f"claim {release.name}-runs is still being deleted; try again soon")
        theirs = (kept["metadata"].get("labels") or {}).get(DIGEST)
        mine = release.experiment.digest()
        if theirs and theirs != mine:
            raise UserError(
                f"claim {release.name}-runs holds a run of another experiment ({theirs}, this one "
                f"is {mine}), which the trainer would refuse to resume; choose another --name, "
                f"or remove it with `fedctl cancel {release.name} --purge`"
            )


def _check_queue(cluster: "Cluster", queue: str) -> None:
    if not cluster.api_versions(kinds.KUEUE):
        remedy = kinds.BROUGHT_BY[kinds.KUEUE]
        raise UserError(f"--queue {queue}: the cluster has no Kueue; {remedy}")
    if _there(cluster, "LocalQueue", queue):
        return
    names = sorted(found["metadata"]["name"] for found in cluster.list("LocalQueue"))
    there = f"it has: {', '.join(names)}" if names else "charts/fedtrain-platform can create one"
    raise UserError(
        f"--queue {queue}: namespace {cluster.namespace} has no such LocalQueue; {there}"
    )


def _there(cluster: "Cluster", kind: str, name: str) -> Object | bool:
    """Return the object; True if it may not be read, so that the server decides."""
    try:
        return cluster.get(kind, name) or False
    except errors.Forbidden:
        return True
