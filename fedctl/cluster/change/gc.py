"""Leftovers on a cluster: runs that ended long ago, and parts of runs that were deleted.

Objects that a Helm release or Argo CD manages are listed and left alone. PVCs, which hold run
folders, are included only on request.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from fedctl.cluster.api import errors
from fedctl.cluster.change.submit import name_of
from fedctl.cluster.status import job
from fedctl.cluster.status.ranks import CHART, NAME
from fedctl.cluster.status.snapshot import PARTS
from fedctl.cluster.transfer import fetch
from fedctl.errors import FedctlError

if TYPE_CHECKING:
    from fedctl.cluster.api.client import Cluster

Object = Mapping[str, Any]
Place = tuple[str, str]  # namespace, run

CLAIM = "PersistentVolumeClaim"
# A submit creates the parts of a run before its job, so a young part may belong to one.
YOUNG = timedelta(minutes=10)
# Annotation -> why the object must be removed by the tool that manages it.
MANAGED = {
    "meta.helm.sh/release-name": "Helm manages it: remove it with `helm uninstall`",
    "argocd.argoproj.io/tracking-id": "Argo CD manages it: remove it from its repository",
}


@dataclass(frozen=True)
class Item:
    """An object that can be removed, and why."""

    obj: Object
    run: str
    why: str

    @property
    def namespace(self) -> str:
        """The object's namespace."""
        return str(self.obj["metadata"].get("namespace", ""))

    @property
    def what(self) -> str:
        """The object as kind.group/name."""
        return name_of(self.obj)

    @property
    def kept(self) -> str:
        """Why another tool must remove it; empty if it may be removed here."""
        marks = self.obj["metadata"].get("annotations") or {}
        return next((why for mark, why in MANAGED.items() if mark in marks), "")

    def as_dict(self) -> dict[str, str]:
        """Return the item as JSON output."""
        fields = {"object": self.what, "namespace": self.namespace, "run": self.run}
        return fields | {"why": self.why, "kept": self.kept}


def find(
    cluster: "Cluster",
    older_than: timedelta,
    claims: bool = False,
    everywhere: bool = False,
    now: datetime | None = None,
) -> list[Item]:
    """Return what can go: jobs first, which delete their pods, then parts, then helper pods."""
    now = now or datetime.now(UTC)
    jobs = {job.place(mine): mine for mine in job.of_namespace(cluster, everywhere)}
    old: dict[Place, str] = {}
    for place, mine in jobs.items():
        end = job.ended(mine)
        since = end.when or job.created(mine) if end else None
        if end and since and now - since >= older_than:
            old[place] = f"{end.word} {_ago(now - since)}"
    items = [Item(jobs[place], place[1], why) for place, why in old.items()]
    for part in _parts(cluster, claims, everywhere):
        place, made = job.place(part), job.created(part)
        if place in old:
            items.append(Item(part, place[1], old[place]))
        elif place not in jobs and made and now - made >= max(older_than, YOUNG):
            items.append(Item(part, place[1], "its run was deleted"))
    return [*items, *_helpers(cluster, everywhere, now)]


def _parts(cluster: "Cluster", claims: bool, everywhere: bool) -> Iterator[Object]:
    """Yield all objects of the chart except jobs, of the kinds that exist and may be listed."""
    for kind in (*PARTS, *([CLAIM] if claims else [])):
        try:
            yield from cluster.list(kind, labels={NAME: CHART}, everywhere=everywhere)
        except (errors.KindMissing, errors.Forbidden):
            continue


def _helpers(cluster: "Cluster", everywhere: bool, now: datetime) -> Iterator[Item]:
    """Yield pods that a killed fetch has left behind."""
    life = timedelta(seconds=fetch.LIFE_SECONDS)
    for pod in cluster.list("Pod", labels={NAME: fetch.HELPER}, everywhere=everywhere):
        made, phase = job.created(pod), (pod.get("status") or {}).get("phase")
        if phase in ("Succeeded", "Failed") or (made and now - made > life):
            run = (pod["metadata"].get("labels") or {}).get(fetch.CLAIMED_BY, "")
            yield Item(pod, run, "left by a fetch")


def remove(cluster: "Cluster", items: Iterable[Item]) -> Iterator[tuple[Item, str]]:
    """Delete the items one by one; yield each with the reason if it could not be removed."""
    for item in items:
        if item.kept:
            yield item, item.kept
            continue
        meta = item.obj["metadata"]
        try:
            cluster.delete(
                item.obj["kind"],
                meta["name"],
                api_version=item.obj["apiVersion"],
                namespace=item.namespace,
                uid=meta.get("uid"),  # not a new run of the same name
            )
            yield item, ""
        except FedctlError as error:
            yield item, str(error)


def _ago(age: timedelta) -> str:
    """Return roughly how long ago: 3 days, 2 hours, 5 minutes."""
    seconds = int(age.total_seconds())
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if count := seconds // size:
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"
