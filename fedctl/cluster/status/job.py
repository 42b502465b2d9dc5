"""Owns the job behind a run, whichever of the three kinds it is: where it is, how it ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fedctl.cluster.api.errors import Forbidden, KindMissing
from fedctl.cluster.status.ranks import CHART, NAME
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
    """How a job has ended, when, and what its operator says of it."""

    succeeded: bool
    when: datetime | None
    message: str

    @property
    def word(self) -> str:
        """For a sentence."""
        return "finished" if self.succeeded else "failed"


def find(cluster: "Cluster", run: str) -> Object | None:
    """The job of this name that our chart made; None: there is none."""
    hidden: list[Forbidden] = []
    for kind in KINDS:
        try:
            found = cluster.get(kind, run)
        except Forbidden as error:  # also said of a kind that the cluster does not have
            hidden.append(error)
            continue
        if found and (found["metadata"].get("labels") or {}).get(NAME) == CHART:
            return found
    if len(hidden) == len(KINDS):
        raise hidden[0]
    return None


def required(cluster: "Cluster", run: str) -> Object:
    """The same; an error where there is none."""
    found = find(cluster, run)
    if found is None:
        raise RunError(f"{run}: no such run in namespace {cluster.namespace}; name another with -n")
    return found


def of_namespace(cluster: "Cluster", everywhere: bool = False) -> list[Object]:
    """All jobs that our chart made, of every kind that the cluster has."""
    found: list[Object] = []
    for kind in KINDS:
        try:
            found += cluster.list(kind, labels={NAME: CHART}, everywhere=everywhere)
        except KindMissing:
            continue
        except Forbidden:  # also said of a kind that the cluster does not have
            if cluster.serves(kind):
                raise
    # JobSet makes Jobs of its own, in whose labels a runtime has a say.
    return [job for job in found if not job["metadata"].get("ownerReferences")]


def ended(job: Object) -> End | None:
    """How it has ended; None: it has not. Only a condition that is true counts."""
    for condition in (job.get("status") or {}).get("conditions") or []:
        if condition.get("status") == "True" and condition["type"] in (*SUCCEEDED, *FAILED):
            return End(
                condition["type"] in SUCCEEDED,
                when(condition.get("lastTransitionTime")),
                str(condition.get("message") or condition.get("reason") or ""),
            )
    return None


def size(job: Object) -> int:
    """How many ranks it has."""
    spec = job["spec"]
    if job["kind"] == "PyTorchJob":
        return sum(int(r.get("replicas") or 1) for r in spec["pytorchReplicaSpecs"].values())
    if job["kind"] == "TrainJob":
        return int((spec.get("trainer") or {}).get("numNodes") or 1)
    return int(spec.get("completions") or 1)


def template(cluster: "Cluster", job: Object) -> Object | None:
    """Its pods' template; None: it was in a TrainingRuntime that is gone."""
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
    """A time as Kubernetes writes it."""
    return datetime.fromisoformat(text) if text else None


def suspended(job: Object) -> bool:
    """Whether it is kept from starting, by a queue or a person."""
    spec = job["spec"]
    return bool(spec.get("suspend") or (spec.get("runPolicy") or {}).get("suspend"))


def why_no_pods(job: Object) -> str:
    """In words."""
    if not suspended(job):
        return "its operator has made no pods yet; `fedctl doctor` says whether it runs"
    queue = (job["metadata"].get("labels") or {}).get(QUEUE)
    return f"queue {queue} has not let it start" if queue else "it is suspended"
