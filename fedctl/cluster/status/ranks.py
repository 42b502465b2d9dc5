"""Owns which pod is which rank of a run, and what its container is doing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedctl.cluster.api.client import Cluster

RUN, NAME, CHART = "app.kubernetes.io/instance", "app.kubernetes.io/name", "fedtrain"
CONTAINERS = ("pytorch", "node", "trainer")  # as the three backends insist on calling it
INDEXES = ("training.kubeflow.org/replica-index", "batch.kubernetes.io/job-completion-index")
METRICS = "metrics"  # the name of the port

# What a container waits for -> how people say it; where Kubernetes explains, its words follow.
WAITING = {
    "ContainerCreating": "its container is being made",
    "PodInitializing": "its container is being made",
    "ErrImagePull": "its image cannot be pulled",
    "ImagePullBackOff": "its image cannot be pulled",
    "InvalidImageName": "its image has no valid name",
    "CrashLoopBackOff": "it is started again after a pause",
    "CreateContainerConfigError": "its container cannot be made",
    "CreateContainerError": "its container cannot be made",
}
HOPELESS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError")


@dataclass(frozen=True)
class Rank:
    """A pod of a run, or one that was: a rank has as many as it took."""

    rank: int
    pod: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The pod's name."""
        return str(self.pod["metadata"]["name"])

    @property
    def incarnation(self) -> tuple[str, int]:
        """Which start of the rank's container this is: it changes when rank or pod restart."""
        return str(self.pod["metadata"]["uid"]), self.restarts

    @property
    def age(self) -> tuple[str, str]:
        """Sorts a rank's pods from the oldest to the newest."""
        return str(self.pod["metadata"].get("creationTimestamp", "")), self.name

    @property
    def node(self) -> str:
        """The node that it is on, if it is on one."""
        return str(self.pod["spec"].get("nodeName") or "")

    @property
    def container(self) -> Mapping[str, Any]:
        """The trainer's part of the pod's spec."""
        containers = self.pod["spec"]["containers"]
        return next((c for c in containers if c["name"] in CONTAINERS), containers[0])

    @property
    def metrics_port(self) -> int | None:
        """Where the rank serves /metrics."""
        ports = self.container.get("ports") or []
        return next((port["containerPort"] for port in ports if port.get("name") == METRICS), None)

    @property
    def restarts(self) -> int:
        """How often the container was started again in this pod."""
        return int(self._status.get("restartCount") or 0)

    @property
    def running(self) -> bool:
        """Whether the trainer is at work."""
        return "running" in self._state

    @property
    def ended(self) -> bool:
        """Whether the container has ended, and is not yet started again."""
        return "terminated" in self._state

    @property
    def has_log(self) -> bool:
        """Whether this start of the container has run; between two the earlier one counts."""
        before = (self._status.get("lastState") or {}).get("terminated")
        return self.running or self.ended or bool(before)

    @property
    def hopeless(self) -> bool:
        """Whether it waits for what does not come by waiting."""
        return (self._state.get("waiting") or {}).get("reason") in HOPELESS

    def why_waiting(self) -> str:
        """Why the container does not run, in words; empty: it does, or did."""
        if self.running or self.ended:
            return ""
        if self.pod["metadata"].get("deletionTimestamp"):
            return "its pod is being removed"
        waiting = self._state.get("waiting") or {}
        reason = str(waiting.get("reason") or "")
        if reason:
            text, message = WAITING.get(reason, reason), str(waiting.get("message") or "")
            return f"{text}: {message}" if message else text
        status = self.pod.get("status") or {}
        for condition in status.get("conditions") or []:
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                if condition.get("reason") == "SchedulingGated":
                    return "its pod is held back until its queue lets it start"
                return f"no node takes it: {condition.get('message') or condition.get('reason')}"
        if status.get("phase") == "Failed":
            return f"its pod has failed: {status.get('reason')}: {status.get('message')}"
        return f"node {self.node} has not started it yet" if self.node else "no node has it yet"

    @property
    def _status(self) -> Mapping[str, Any]:
        statuses = (self.pod.get("status") or {}).get("containerStatuses") or []
        name = self.container["name"]
        return next((status for status in statuses if status["name"] == name), {})

    @property
    def _state(self) -> Mapping[str, Any]:
        return self._status.get("state") or {}


def of_run(cluster: "Cluster", run: str) -> list[Rank]:
    """The pods of a run, rank by rank, of each rank the newest last."""
    return of_pods(cluster.list("Pod", labels={NAME: CHART, RUN: run}))


def of_pods(pods: Iterable[Mapping[str, Any]]) -> list[Rank]:
    """The same of pods at hand; one whose operator has not told it its rank is left out."""
    found = []
    for pod in pods:
        meta = pod["metadata"]
        marks = {**(meta.get("annotations") or {}), **(meta.get("labels") or {})}
        index = next((marks[name] for name in INDEXES if name in marks), "")
        if index.isdigit():
            found.append(Rank(int(index), pod))
    return sorted(found, key=lambda rank: (rank.rank, rank.age))


def newest(ranks: Iterable[Rank]) -> dict[int, Rank]:
    """Of each rank the newest pod."""
    return {rank.rank: rank for rank in sorted(ranks, key=lambda rank: rank.age)}
