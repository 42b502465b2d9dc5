"""The pods of a run by rank, and what their containers are doing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedctl.cluster.api.client import Cluster

RUN, NAME, CHART = "app.kubernetes.io/instance", "app.kubernetes.io/name", "fedtrain"
CONTAINERS = ("pytorch", "node", "trainer")  # the name that each of the three backends requires
INDEXES = ("training.kubeflow.org/replica-index", "batch.kubernetes.io/job-completion-index")
METRICS = "metrics"  # the name of the port

# Kubernetes' reason -> a phrase for people, followed by Kubernetes' message if there is one.
WAITING = {
    "ContainerCreating": "its container is being created",
    "PodInitializing": "its container is being created",
    "ErrImagePull": "its image cannot be pulled",
    "ImagePullBackOff": "its image cannot be pulled",
    "InvalidImageName": "its image name is not valid",
    "CrashLoopBackOff": "it is restarted after a pause",
    "CreateContainerConfigError": "its container cannot be created",
    "CreateContainerError": "its container cannot be created",
}
HOPELESS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError")


@dataclass(frozen=True)
class Rank:
    """One pod of a rank; a rank that was restarted has had several."""

    rank: int
    pod: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The pod's name."""
        return str(self.pod["metadata"]["name"])

    @property
    def incarnation(self) -> tuple[str, int]:
        """Which start of the container this is; it changes when the container or pod restarts."""
        return str(self.pod["metadata"]["uid"]), self.restarts

    @property
    def age(self) -> tuple[str, str]:
        """Sort key of a rank's pods, from the oldest to the newest."""
        return str(self.pod["metadata"].get("creationTimestamp", "")), self.name

    @property
    def node(self) -> str:
        """The pod's node; empty if it has none yet."""
        return str(self.pod["spec"].get("nodeName") or "")

    @property
    def container(self) -> Mapping[str, Any]:
        """The trainer's container in the pod's spec."""
        containers = self.pod["spec"]["containers"]
        return next((c for c in containers if c["name"] in CONTAINERS), containers[0])

    @property
    def metrics_port(self) -> int | None:
        """The port of /metrics."""
        ports = self.container.get("ports") or []
        return next((port["containerPort"] for port in ports if port.get("name") == METRICS), None)

    @property
    def restarts(self) -> int:
        """How often the container was restarted in this pod."""
        return int(self._status.get("restartCount") or 0)

    @property
    def running(self) -> bool:
        """Whether the trainer is running."""
        return "running" in self._state

    @property
    def ended(self) -> bool:
        """Whether the container has ended and has not been restarted yet."""
        return "terminated" in self._state

    @property
    def has_log(self) -> bool:
        """Whether there is a log: of this start of the container, or of the one before."""
        before = (self._status.get("lastState") or {}).get("terminated")
        return self.running or self.ended or bool(before)

    @property
    def hopeless(self) -> bool:
        """Whether waiting longer cannot help."""
        return (self._state.get("waiting") or {}).get("reason") in HOPELESS

    def why_waiting(self) -> str:
        """Return why the container does not run, for people; empty if it does, or did."""
        if self.running or self.ended:
            return ""
        if self.pod["metadata"].get("deletionTimestamp"):
            return "its pod is being deleted"
        waiting = self._state.get("waiting") or {}
        reason = str(waiting.get("reason") or "")
        if reason:
            text, message = WAITING.get(reason, reason), str(waiting.get("message") or "")
            return f"{text}: {message}" if message else text
        status = self.pod.get("status") or {}
        for condition in status.get("conditions") or []:
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                if condition.get("reason") == "SchedulingGated":
                    return "its pod is held back until its queue admits it"
                return f"no node fits: {condition.get('message') or condition.get('reason')}"
        if status.get("phase") == "Failed":
            return f"its pod has failed: {status.get('reason')}: {status.get('message')}"
        return f"node {self.node} has not started it yet" if self.node else "it has no node yet"

    @property
    def _status(self) -> Mapping[str, Any]:
        statuses = (self.pod.get("status") or {}).get("containerStatuses") or []
        name = self.container["name"]
        return next((status for status in statuses if status["name"] == name), {})

    @property
    def _state(self) -> Mapping[str, Any]:
        return self._status.get("state") or {}


def of_run(cluster: "Cluster", run: str) -> list[Rank]:
    """Return the pods of a run by rank, and those of a rank from the oldest to the newest."""
    return of_pods(cluster.list("Pod", labels={NAME: CHART, RUN: run}))


def of_pods(pods: Iterable[Mapping[str, Any]]) -> list[Rank]:
    """Return these pods by rank; skip a pod that its operator has not given a rank yet."""
    found = []
    for pod in pods:
        meta = pod["metadata"]
        marks = {**(meta.get("annotations") or {}), **(meta.get("labels") or {})}
        index = next((marks[name] for name in INDEXES if name in marks), "")
        if index.isdigit():
            found.append(Rank(int(index), pod))
    return sorted(found, key=lambda rank: (rank.rank, rank.age))


def newest(ranks: Iterable[Rank]) -> dict[int, Rank]:
    """Return the newest pod of each rank."""
    return {rank.rank: rank for rank in sorted(ranks, key=lambda rank: rank.age)}
