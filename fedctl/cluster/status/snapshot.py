"""A snapshot of a run: its job, pods, PVCs, queue entry and warnings.

It reads and does not judge. If a part may not be read, the rest is still returned.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fedctl.cluster.api.errors import Forbidden, KindMissing
from fedctl.cluster.status import job, ranks
from fedctl.cluster.status.ranks import CHART, NAME, RUN, Rank

if TYPE_CHECKING:
    from fedctl.cluster.api.client import Cluster

Object = Mapping[str, Any]

DIGEST = "fedctl/digest"
# What a run consists of besides its job; with a group if two kinds have the same name.
PARTS = ("ConfigMap", "Service", "NetworkPolicy", "PodGroup", "PodGroup.scheduling.volcano.sh",
         "TrainingRuntime", "PodMonitor")  # fmt: skip


def selector(run: str) -> dict[str, str]:
    """Return the labels of everything that belongs to a run."""
    return {NAME: CHART, RUN: run}


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment. `workload` is its entry in Kueue's queue, if it has one."""

    run: str
    namespace: str
    job: Object | None
    pods: Sequence[Object] = ()
    events: Sequence[Object] = ()  # warnings only, the newest last
    claims: Sequence[Object] = ()
    workload: Object | None = None
    kueue: bool | None = None  # whether the cluster has it; None: no permission
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def ranks(self) -> dict[int, Rank]:
        """The newest pod of each rank."""
        return ranks.newest(ranks.of_pods(self.pods))

    @property
    def queue(self) -> str | None:
        """The Kueue queue that the job was sent to."""
        labels = self.job["metadata"].get("labels") or {} if self.job else {}
        return labels.get(job.QUEUE)

    @property
    def age_seconds(self) -> float:
        """Age of the job; 0 if there is none."""
        made = job.created(self.job) if self.job else None
        return (self.now - made).total_seconds() if made else 0.0


def read(cluster: "Cluster", run: str) -> Snapshot:
    """Read all parts of a run from the cluster."""
    mine = job.find(cluster, run)
    pods = cluster.list("Pod", labels=selector(run))
    queued = mine is not None and job.QUEUE in (mine["metadata"].get("labels") or {})
    workload, kueue = _queue(cluster, mine) if mine and queued else (None, None)
    claims = _claims(cluster, run, pods)
    events = _events(cluster, run, mine, pods, claims, workload)
    return Snapshot(run, cluster.namespace, mine, pods, events, claims, workload, kueue)


def _queue(cluster: "Cluster", mine: Object) -> tuple[Object | None, bool | None]:
    try:
        return workload_of(cluster, mine), True
    except KindMissing:
        return None, False
    except Forbidden:
        return None, None


def workload_of(cluster: "Cluster", mine: Object) -> Object | None:
    """Return the newest Workload that Kueue has created for a job."""
    uid = mine["metadata"]["uid"]
    found = [
        workload
        for workload in cluster.list("Workload")
        if any(o["uid"] == uid for o in workload["metadata"].get("ownerReferences") or [])
    ]
    found.sort(key=lambda workload: str(workload["metadata"].get("creationTimestamp", "")))
    return found[-1] if found else None


def _claims(cluster: "Cluster", run: str, pods: Sequence[Object]) -> list[Object]:
    """Return the PVCs that the run created, and those that its pods mount."""
    found = {
        claim["metadata"]["name"]: claim
        for claim in _or(list, cluster.list, "PersistentVolumeClaim", labels=selector(run))
    }
    for pod in pods[:1]:
        for volume in pod["spec"].get("volumes") or []:
            name = (volume.get("persistentVolumeClaim") or {}).get("claimName")
            if name and name not in found:
                claim = _or(lambda: None, cluster.get, "PersistentVolumeClaim", name)
                if claim:
                    found[name] = claim
    return list(found.values())


def _events(
    cluster: "Cluster",
    run: str,
    mine: Object | None,
    pods: Sequence[Object],
    claims: Sequence[Object],
    workload: Object | None,
) -> list[Object]:
    """Return warnings about the run, its pods, and what its operator has created for it."""
    about = {run, f"{run}-node-0"}  # the latter: the Job that JobSet makes of a TrainJob's ranks
    about |= {obj["metadata"]["name"] for obj in (*pods, *claims)}
    if workload:
        about.add(workload["metadata"]["name"])
    found = _or(list, cluster.list, "Event", fields={"type": "Warning"})
    made = job.created(mine) if mine else None
    ours = [
        event
        for event in found
        if event["involvedObject"].get("name") in about and not _of_an_earlier_run(event, made)
    ]
    return sorted(ours, key=last_seen)


def _of_an_earlier_run(event: Object, made: datetime | None) -> bool:
    """Return whether an event is about an earlier run of the same name; PVCs outlive their run."""
    seen = job.when(last_seen(event))
    claims = event["involvedObject"].get("kind") == "PersistentVolumeClaim"
    return not claims and made is not None and seen is not None and seen < made


def last_seen(event: Object) -> str:
    """Return when an event happened last; old and new clients use different fields."""
    series = event.get("series") or {}
    times = (event.get("lastTimestamp"), series.get("lastObservedTime"), event.get("eventTime"))
    meta = event["metadata"].get("creationTimestamp")
    return max(str(time) for time in (*times, meta, "") if time is not None)


def _or(otherwise: Callable[[], Any], request: Callable[..., Any], *words: Any, **more: Any) -> Any:
    """Send a request; return `otherwise()` if the kind is not installed or may not be read."""
    try:
        return request(*words, **more)
    except (Forbidden, KindMissing):
        return otherwise()
