"""The job of a run, of any of the three kinds: where it is, how large, how it ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fedctl.cluster.api.errors import Forbidden, KindMissing
from fedctl.cluster.status.ranks import CHART, NAME, RUN
from fedctl.errors import RunError

if TYPE_CHECKING:
    from fedctl.cluster.api.client import Cluster

Object = Mapping[str, Any]

KINDS = ("PyTorchJob", "TrainJob", "Job")
SUCCEEDED, FAILED = ("Succeeded", "Complete"), ("Failed",)
QUEUE = "kueue.x-k8s.io/queue-name"
# As Kueue's configuration names the kinds that it manages.
INTEGRATIONS = {
    "PyTorchJob": "kubeflow.org/pytorchjob",
    "TrainJob": "trainer.kubeflow.org/trainjob",
    "Job": "batch/job",
}


@dataclass(frozen=True)
class End:
    """How a job has ended, when, and its operator's message."""

    succeeded: bool
    when: datetime | None
    message: str

    @property
    def word(self) -> str:
        """The end in one word."""
        return "finished" if self.succeeded else "failed"


def find(cluster: "Cluster", run: str) -> Object | None:
    """Return the job of this name that the chart created; None if there is none."""
    hidden: list[Forbidden] = []
    for kind in KINDS:
        try:
            found = cluster.get(kind, run)
        except Forbidden as error:  # servers may also answer this for a kind that is not installed
            hidden.append(error)
            continue
        if found and (found["metadata"].get("labels") or {}).get(NAME) == CHART:
            return found
    if len(hidden) == len(KINDS):
        raise hidden[0]
    return None


def required(cluster: "Cluster", run: str) -> Object:
    """Return the job of this name; raise if there is none."""
    found = find(cluster, run)
    if found is None:
        raise RunError(f"{run}: no such run in namespace {cluster.namespace}; name another with -n")
    return found


def of_namespace(cluster: "Cluster", everywhere: bool = False) -> list[Object]:
    """Return all jobs that the chart created, of every installed kind."""
    found: list[Object] = []
    for kind in KINDS:
        try:
            found += cluster.list(kind, labels={NAME: CHART}, everywhere=everywhere)
        except KindMissing:
            continue
        except Forbidden:  # servers may also answer this for a kind that is not installed
            if cluster.serves(kind):
                raise
    # JobSet creates Jobs of its own, which may have these labels from the runtime.
    return [job for job in found if not job["metadata"].get("ownerReferences")]


def ended(job: Object) -> End | None:
    """Return how the job has ended; None if it has not. Only a condition that is true counts."""
    for condition in (job.get("status") or {}).get("conditions") or []:
        if condition.get("status") == "True" and condition["type"] in (*SUCCEEDED, *FAILED):
            return End(
                condition["type"] in SUCCEEDED,
                when(condition.get("lastTransitionTime")),
                str(condition.get("message") or condition.get("reason") or ""),
            )
    return None


def size(job: Object) -> int:
    """Return the number of ranks."""
    spec = job["spec"]
    if job["kind"] == "PyTorchJob":
        return sum(int(r.get("replicas") or 1) for r in spec["pytorchReplicaSpecs"].values())
    if job["kind"] == "TrainJob":
        return int((spec.get("trainer") or {}).get("numNodes") or 1)
    return int(spec.get("completions") or 1)


def template(cluster: "Cluster", job: Object) -> Object | None:
    """Return the pods' template; None if it was in a TrainingRuntime that was deleted."""
    if job["kind"] == "PyTorchJob":
        replicas: dict[str, Object] = job["spec"]["pytorchReplicaSpecs"]
        return next(iter(replicas.values()))["template"]  # type: ignore[no-any-return]
    if job["kind"] == "Job":
        return job["spec"]["template"]  # type: ignore[no-any-return]
    runtime = cluster.get("TrainingRuntime", job["spec"]["runtimeRef"]["name"])
    if runtime is None:
        return None
    replicated = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    return replicated[0]["template"]["spec"]["template"]  # type: ignore[no-any-return]


def when(text: str | None) -> datetime | None:
    """Parse a time as Kubernetes writes it."""
    return datetime.fromisoformat(text) if text else None


def created(obj: Object) -> datetime | None:
    """Return when an object was created."""
    return when(obj["metadata"].get("creationTimestamp"))


def place(obj: Object) -> tuple[str, str]:
    """Return the namespace of an object, and the run that its labels name."""
    meta = obj["metadata"]
    return str(meta.get("namespace", "")), str((meta.get("labels") or {}).get(RUN, ""))


def suspended(job: Object) -> bool:
    """Return whether a queue or a person keeps the job from starting."""
    spec = job["spec"]
    return bool(spec.get("suspend") or (spec.get("runPolicy") or {}).get("suspend"))


def why_no_pods(job: Object) -> str:
    """Return why the job has no pods, for people."""
    if not suspended(job):
        return "its operator has created no pods yet; `fedctl doctor` checks whether it is running"
    queue = (job["metadata"].get("labels") or {}).get(QUEUE)
    return f"queue {queue} has not admitted it yet" if queue else "it is suspended"
