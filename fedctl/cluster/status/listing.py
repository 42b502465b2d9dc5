"""The list of all runs on a cluster, on any backend."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fedctl.cluster.api import errors
from fedctl.cluster.status import job, state
from fedctl.cluster.status.ranks import CHART, NAME, RUN
from fedctl.cluster.status.snapshot import Snapshot
from fedctl.cluster.status.state import RunState

if TYPE_CHECKING:
    from fedctl.cluster.api.client import Cluster

Object = Mapping[str, Any]
OURS = {NAME: CHART}


@dataclass(frozen=True)
class Listed:
    """A run in a list; `algorithm` and `sync` are empty if its experiment may not be read."""

    name: str
    namespace: str
    now: RunState
    made: datetime | None
    algorithm: str = ""
    sync: str = ""


def runs(cluster: "Cluster", everywhere: bool = False) -> list[Listed]:
    """Return the runs of a namespace, or of all namespaces, the newest first."""
    jobs = [
        found for kind in job.KINDS for found in _all(cluster, kind, everywhere) if _whole(found)
    ]
    pods: dict[tuple[str, str], list[Object]] = defaultdict(list)
    for pod in _all(cluster, "Pod", everywhere):
        pods[job.place(pod)].append(pod)
    experiments = {job.place(config): config for config in _all(cluster, "ConfigMap", everywhere)}
    found = []
    for mine in jobs:
        namespace, name = place = job.place(mine)
        now = state.of(Snapshot(name, namespace, mine, pods[place]))
        names = _names(experiments.get(place))
        found.append(Listed(name, namespace, now, job.created(mine), *names))
    found.sort(key=lambda run: (run.made.timestamp() if run.made else 0.0, run.name), reverse=True)
    return found


def _all(cluster: "Cluster", kind: str, everywhere: bool) -> list[dict[str, Any]]:
    """Return the chart's objects of a kind; none if the kind is not installed."""
    try:
        return cluster.list(kind, labels=OURS, everywhere=everywhere)
    except errors.KindMissing:
        return []
    except errors.Forbidden:
        # Servers may also answer this for a kind that is not installed. ConfigMaps only add names
        # of algorithms; but without permission to list pods no state can be shown.
        if kind == "Pod":
            raise
        return []


def _whole(mine: Object) -> bool:
    """Return whether this is a run, and not the Job that JobSet creates for a TrainJob's ranks."""
    return bool(mine["metadata"].get("labels", {}).get(RUN) == mine["metadata"]["name"])


def _names(config: Object | None) -> tuple[str, str]:
    try:
        experiment = json.loads((config or {})["data"]["experiment.json"])
        return str(experiment["algorithm"]["name"]), str(experiment["sync"]["name"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return "", ""
