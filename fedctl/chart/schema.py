"""The values of charts/fedtrain: their names, types, defaults and documentation.

The chart's values.yaml, values.schema.json and README.md are generated from here. What follows from
an experiment is in values.py. Rules over several values are in the chart itself, so that they also
hold for people who use it without fedctl.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic.alias_generators import to_camel

from trainer.config.base import setting

Profile = Literal[
    "tcp", "infiniband", "coreweave", "together", "nebius", "aws-efa", "oci-roce"
]  # see templates/_network.tpl
Switch = Literal["auto", True, False]


class Part(BaseModel):
    """A group of values, written in camel case as usual in Helm."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_default=True
    )


class Image(Part):
    """The container image."""

    reference: str = setting(
        "fedctl-trainer:0.1.0",
        help="Image whose entrypoint is the trainer (docs/image.md), with tag or digest; a digest "
        "(`name@sha256:...`) makes restarts run the same code",
        min_length=1,
    )
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = setting(
        "IfNotPresent", help="When the kubelet pulls it"
    )
    pull_secrets: tuple[str, ...] = setting((), help="Names of Secrets for its registry")


class Resources(Part):
    """Resources of each rank."""

    gpus: int = setting(1, help="GPUs of a rank: 1, or 0 to train on CPUs", ge=0, le=1)
    gpu_resource: str = setting("nvidia.com/gpu", help="The resource that a GPU is asked for by")
    cpus: float = setting(4, help="CPUs that a rank asks for", gt=0)
    memory_mib: int = setting(
        16384,
        alias="memoryMiB",
        help="Memory of a rank's process, in MiB; /dev/shm comes on top",
        ge=256,
    )
    shared_memory_mib: int = setting(
        2048,
        alias="sharedMemoryMiB",
        help="Size of /dev/shm in MiB, which NCCL and data loading use; counted in the limit",
        ge=64,
    )


class Network(Part):
    """How ranks communicate."""

    profile: Profile = setting(
        "tcp",
        help="`tcp`, or how an RDMA fabric is reached; those need `podSecurity: privileged`",
    )
    interface: str = setting(
        "", help="Network interface of NCCL and gloo, such as `eth0`; empty: they look for one"
    )
    rdma_resource: str = setting(
        "", help="Resource that an RDMA device is asked for by; empty: the profile's"
    )


class Volume(Part):
    """A volume of a run."""

    kind: Literal["new", "claim", "ephemeral"] = setting(
        "new",
        help="`new`: a claim that the chart makes; `claim`: one that is there; `ephemeral`: gone "
        "with the pod",
    )
    claim: str = setting("", help="The claim's name, for `claim`")
    storage_class: str = setting("", help="For `new`; empty: the cluster's default")
    size: str = setting("10Gi", help="For `new`", pattern=r"^[0-9]+(\.[0-9]+)?([KMGTP]i?)?$")
    access_mode: Literal["ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"] = setting(
        "ReadWriteMany", help="For `new`; several ranks share a checkpoint's folder"
    )
    keep: bool = setting(True, help="For `new`: outlive the release")


class Storage(Part):
    """Where a run reads and writes."""

    runs: Volume = setting(
        Volume(), help="Run folders, with checkpoints: /runs/NAME. All ranks share it"
    )
    data: Volume = setting(
        Volume.model_validate({"kind": "ephemeral", "size": "50Gi"}), help="Data sets: /data"
    )
    object_store_secret: str = setting(
        "", help="Secret whose keys become variables, such as AWS_ACCESS_KEY_ID"
    )


class Topology(Part):
    """How close to each other the ranks must be."""

    key: str = setting(
        "", help="Node label, such as `topology.kubernetes.io/zone`; empty: anywhere"
    )
    required: bool = setting(False, help="Wait for such a place, rather than prefer it")


class Scheduling(Part):
    """Node placement and priority."""

    node_selector: dict[str, str] = setting({}, help="Labels that nodes must have")
    tolerations: tuple[dict[str, Any], ...] = setting((), help="Taints that pods put up with")
    topology: Topology = setting(Topology(), help="How near each other ranks have to be")
    priority_class: str = setting("", help="PriorityClass of the pods")
    scheduler_name: str = setting("", help="Scheduler; empty: the cluster's, or the queue's")


class Queue(Part):
    """Queue or gang scheduler that starts the ranks."""

    kind: Literal["none", "kueue", "volcano", "native"] = setting(
        "none",
        help="`kueue`: the job is made suspended, and Kueue starts it; `volcano`; `native`: the "
        "scheduler's own gangs, from Kubernetes 1.36 on",
    )
    name: str = setting("", help="LocalQueue of Kueue, or queue of Volcano")
    priority_class: str = setting("", help="WorkloadPriorityClass, for Kueue")


def _not_exit_code(policy: Any) -> Any:
    if policy == "ExitCode":
        raise ValueError(
            "under ExitCode a PyTorchJob restarts pods for ever, whatever the limit; use OnFailure"
        )
    return policy


RestartPolicy = Annotated[Literal["OnFailure", "Never"], BeforeValidator(_not_exit_code)]


class Restart(Part):
    """What happens when a rank fails."""

    policy: RestartPolicy = setting(
        "OnFailure", help="`Never`: the first failure of a rank ends the run"
    )
    limit: int = setting(
        3, help="Restarts of the whole run; what Kubernetes counts is scaled by the ranks", ge=0
    )


class NetworkPolicy(Part):
    """Who may connect to the pods, and where they may connect to."""

    enabled: bool = setting(True, help="Close the pods to all but each other, DNS and metrics")
    metrics_from: tuple[dict[str, Any], ...] = setting(
        (), help="Who may read metrics, as in a NetworkPolicy's `from`; empty: anybody"
    )
    restrict_egress: bool = setting(
        True, help="Close the way out too: no downloads of data sets, no trackers"
    )
    egress_to: tuple[dict[str, Any], ...] = setting(
        (), help="Where pods may connect to all the same, as in a NetworkPolicy's `egress`"
    )


class PodMonitor(Part):
    """How Prometheus finds the ranks."""

    enabled: Switch = setting(
        False,
        help="Scrape this run: `auto` (if the cluster has the kind), `true` or `false`. The chart "
        "fedtrain-platform brings one for all runs of a namespace: don't use both",
    )
    labels: dict[str, str] = setting({}, help="Labels that your Prometheus selects it by")
    interval: str = setting("15s", help="How often", pattern=r"^[0-9]+(ms|s|m)$")


class Values(Part):
    """All values."""

    backend: Literal["pytorchjob", "trainjob", "job"] = setting(
        "pytorchjob",
        help="What runs the pods: `pytorchjob` (Kubeflow training operator v1), `trainjob` "
        "(Kubeflow Trainer v2), `job` (Kubernetes alone)",
    )
    experiment: str = setting(
        "", help="The experiment, in the one JSON form that `fedctl values` writes. Don't edit it"
    )
    image: Image = setting(Image(), help="The container image")
    resources: Resources = setting(Resources(), help="What each rank gets")
    network: Network = setting(Network(), help="How ranks talk to each other")
    pod_security: Literal["restricted", "baseline", "privileged"] = setting(
        "restricted", help="Pod Security level of the namespace"
    )
    run_as_user: int | None = setting(
        10001, help="User and group of the pods; null: the cluster chooses (OpenShift)", ge=1
    )
    service_account: str = setting(
        "", help="ServiceAccount; its token is not mounted: training asks the API for nothing"
    )
    env: dict[str, str] = setting({}, help="More variables; they override the chart's")
    env_from_secrets: tuple[str, ...] = setting(
        (), help="Secrets whose keys become variables, such as WANDB_API_KEY"
    )
    storage: Storage = setting(Storage(), help="Where a run reads and writes")
    scheduling: Scheduling = setting(Scheduling(), help="Which nodes, and before whom")
    queue: Queue = setting(Queue(), help="Who decides when all ranks may start")
    restart: Restart = setting(Restart(), help="What happens when a rank fails")
    deadline_seconds: int = setting(
        0, help="A run that takes longer saves a checkpoint and fails; 0: none", ge=0
    )
    grace_period_seconds: int = setting(
        300, help="To finish a round and save a checkpoint when asked to stop", ge=1
    )
    rendezvous_seconds: int = setting(
        600, help="For ranks to find rank 0; covers the kubelet's longest back-off", ge=1
    )
    ttl_seconds_after_finished: int | None = setting(
        None, help="Delete the job so long after its end; null: never", ge=0
    )
    metrics_port: int = setting(9401, help="Port of /metrics", ge=1024, le=65535)
    rendezvous_port: int = setting(23456, help="Port of rank 0", ge=1024, le=65535)
    network_policy: NetworkPolicy = setting(NetworkPolicy(), help="Who may talk to the pods")
    pod_monitor: PodMonitor = setting(PodMonitor(), help="How Prometheus finds the ranks")
    labels: dict[str, str] = setting({}, help="Labels of every object, beside the chart's own")
    pod_labels: dict[str, str] = setting({}, help="Labels of the pods")
    pod_annotations: dict[str, str] = setting({}, help="Annotations of the pods")
    pod_overlay: dict[str, Any] = setting(
        {},
        help="Laid over the pod template (`metadata`, `spec`), lists of named things by name; the "
        "container is called `trainer` here, whatever the backend calls it",
    )


def folder() -> Path:
    """Return the chart's folder: inside an installed package, or next to it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    packaged = package / "charts" / "fedtrain"
    return packaged if packaged.is_dir() else package.parent / "charts" / "fedtrain"
