"""The values of charts/fedtrain: their names, types, defaults and documentation.

The chart's values.yaml, values.schema.json and README.md are generated from here. What follows from
an experiment is in values.py, what concerns storage in storage.py. Rules over several values are in
the chart itself, so that they also hold for people who use it without fedctl.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, field_validator

from fedctl.chart.part import Part, written
from fedctl.chart.storage import Storage
from trainer.config.base import setting

Profile = Literal[
    "tcp", "infiniband", "coreweave", "together", "nebius", "aws-efa", "oci-roce"
]  # see templates/_network.tpl
MOST_MIB = 2**24  # 16 TiB
MOST_SECONDS = 10 * 366 * 86400  # ten years
Switch = Literal["auto", True, False]
INTERVAL = r"^[0-9]+(ms|s|m)$"
Interval = Annotated[str, written(INTERVAL, "write a number and a unit, such as 15s")]


class Image(Part):
    """The container image."""

    reference: str = setting(
        "fedctl-trainer:0.1.0",
        help="Image whose entrypoint is the trainer (docs/image.md), with tag or digest; a digest "
        "(`name@sha256:...`) makes restarts run the same code",
        min_length=1,
    )

    @field_validator("reference")
    @classmethod
    def _is_no_url(cls, value: str) -> str:
        if "://" in value:  # which no container runtime takes, and which may hold a password
            raise ValueError("is a URL; write REGISTRY/NAME:TAG, and a login as image.pullSecrets")
        return value

    pull_policy: Literal["Always", "IfNotPresent", "Never"] = setting(
        "IfNotPresent", help="When the kubelet pulls it"
    )
    pull_secrets: tuple[str, ...] = setting((), help="Names of Secrets for its registry")


def _at_most_one(gpus: Any) -> Any:
    if isinstance(gpus, int) and gpus > 1:
        raise ValueError("a rank uses one GPU; for more of them, use more ranks")
    return gpus


class Resources(Part):
    """Resources of each rank."""

    gpus: Annotated[int, BeforeValidator(_at_most_one)] = setting(
        1, help="GPUs per rank: 1, or 0 to train on CPUs", ge=0, le=1
    )
    gpu_resource: str = setting(
        "nvidia.com/gpu", help="Extended resource name used to request a GPU"
    )
    cpus: float = setting(4, help="CPUs that a rank requests", gt=0, le=4096)
    memory_mib: int = setting(
        16384,
        alias="memoryMiB",
        help="Memory of a rank's process, in MiB; /dev/shm comes on top",
        ge=256,
        le=MOST_MIB,
    )
    shared_memory_mib: int = setting(
        2048,
        alias="sharedMemoryMiB",
        help="Size of /dev/shm in MiB, which NCCL and data loading use; counted in the limit",
        ge=64,
        le=MOST_MIB,
    )


class Network(Part):
    """How ranks communicate."""

    profile: Profile = setting(
        "tcp",
        help="`tcp`, or an RDMA fabric; those need `podSecurity: privileged`",
    )
    interface: str = setting(
        "", help="Network interface of NCCL and gloo, such as `eth0`; empty: detected"
    )
    rdma_resource: str = setting(
        "", help="Extended resource name used to request an RDMA device; empty: the profile's"
    )


class Topology(Part):
    """How close to each other the ranks must be."""

    key: str = setting(
        "", help="Node label, such as `topology.kubernetes.io/zone`; empty: anywhere"
    )
    required: bool = setting(False, help="Wait for such nodes, rather than prefer them")


class Scheduling(Part):
    """Node placement and priority."""

    node_selector: dict[str, str] = setting({}, help="Labels that the nodes must have")
    tolerations: tuple[dict[str, Any], ...] = setting((), help="Tolerations of the pods")
    topology: Topology = setting(Topology(), help="How close to each other the ranks must be")
    priority_class: str = setting("", help="PriorityClass of the pods")
    scheduler_name: str = setting(
        "", help="Scheduler of the pods; empty: the cluster's, or the queue's"
    )


class Queue(Part):
    """Queue or gang scheduler that starts the ranks."""

    kind: Literal["none", "kueue", "volcano", "native"] = setting(
        "none",
        help="`kueue`: the job is created suspended, and Kueue starts it; `volcano`; `native`: the "
        "scheduler's own gangs, from Kubernetes 1.36 on",
    )
    name: str = setting("", help="LocalQueue of Kueue, or queue of Volcano")
    priority_class: str = setting("", help="WorkloadPriorityClass, for Kueue")


def _not_exit_code(policy: Any) -> Any:
    if policy == "ExitCode":
        raise ValueError(
            "under ExitCode a PyTorchJob restarts pods forever, whatever the limit; use OnFailure"
        )
    return policy


RestartPolicy = Annotated[Literal["OnFailure", "Never"], BeforeValidator(_not_exit_code)]


class Restart(Part):
    """What happens when a rank fails."""

    policy: RestartPolicy = setting(
        "OnFailure", help="`Never`: the first failure of a rank ends the run"
    )
    limit: int = setting(
        3,
        help="Restarts of the whole run. Kubernetes counts container or pod restarts, so its limit "
        "is set to this times the number of ranks",
        ge=0,
        le=10_000,
    )


class NetworkPolicy(Part):
    """Who may connect to the pods, and where they may connect to."""

    enabled: bool = setting(
        True, help="Allow only connections between the pods, to DNS, and to metrics"
    )
    metrics_from: tuple[dict[str, Any], ...] = setting(
        (), help="Who may read metrics, as in a NetworkPolicy's `from`; empty: anyone"
    )
    restrict_egress: bool = setting(
        True, help="Also forbid connections to the outside: no downloads of data sets, no trackers"
    )
    egress_to: tuple[dict[str, Any], ...] = setting(
        (), help="Exceptions for connections to the outside, as in a NetworkPolicy's `egress`"
    )


class PodMonitor(Part):
    """How Prometheus finds the ranks."""

    enabled: Switch = setting(
        False,
        help="Scrape this run: `auto` (if the cluster has the kind), `true` or `false`. The chart "
        "fedtrain-platform has one for all runs of a namespace: do not use both",
    )
    labels: dict[str, str] = setting({}, help="Labels by which your Prometheus selects it")
    interval: Interval = setting("15s", help="Scrape interval", pattern=INTERVAL)


class Values(Part):
    """All values."""

    backend: Literal["pytorchjob", "trainjob", "job"] = setting(
        "pytorchjob",
        help="Operator that runs the pods: `pytorchjob` (Kubeflow training operator v1), "
        "`trainjob` (Kubeflow Trainer v2), `job` (Kubernetes alone)",
    )
    experiment: str = setting(
        "", help="The experiment, in the canonical JSON that `fedctl values` writes. Do not edit it"
    )
    image: Image = setting(Image(), help="The container image")
    resources: Resources = setting(Resources(), help="Resources of each rank")
    network: Network = setting(Network(), help="Network between the ranks")
    pod_security: Literal["restricted", "baseline", "privileged"] = setting(
        "restricted", help="Pod Security level of the namespace"
    )
    run_as_user: int | None = setting(
        10001,
        help="User and group of the pods; null: the cluster chooses (OpenShift)",
        ge=1,
        le=2**31 - 1,
    )
    service_account: str = setting(
        "",
        help="ServiceAccount of the pods. Its token is not mounted, since training never calls the "
        "Kubernetes API",
    )
    env: dict[str, str] = setting({}, help="More environment variables; they override the chart's")
    env_from_secrets: tuple[str, ...] = setting(
        (), help="Secrets whose keys become environment variables, such as WANDB_API_KEY"
    )
    storage: Storage = setting(Storage(), help="Where a run reads and writes")
    scheduling: Scheduling = setting(Scheduling(), help="Node placement and priority")
    queue: Queue = setting(Queue(), help="Queue or gang scheduler that starts the ranks")
    restart: Restart = setting(Restart(), help="What happens when a rank fails")
    deadline_seconds: int = setting(
        0,
        help="Time limit; a run that takes longer saves a checkpoint and fails; 0: none",
        ge=0,
        le=MOST_SECONDS,
    )
    grace_period_seconds: int = setting(
        300,
        help="Time to finish a round and save a checkpoint when the pods are stopped",
        ge=1,
        le=MOST_SECONDS,
    )
    rendezvous_seconds: int = setting(
        600,
        help="Time limit for reaching rank 0; covers the kubelet's longest back-off",
        ge=1,
        le=MOST_SECONDS,
    )
    ttl_seconds_after_finished: int | None = setting(
        None,
        help="Delete the job this long after its end; null: never",
        ge=0,
        le=MOST_SECONDS,
    )
    metrics_port: int = setting(9401, help="Port of each rank's /metrics", ge=1024, le=65535)
    rendezvous_port: int = setting(
        23456, help="Port of rank 0 for the rendezvous", ge=1024, le=65535
    )
    network_policy: NetworkPolicy = setting(
        NetworkPolicy(), help="Connections that the pods accept and open"
    )
    pod_monitor: PodMonitor = setting(PodMonitor(), help="How Prometheus finds the ranks")
    labels: dict[str, str] = setting({}, help="Labels of every object, besides the chart's own")
    pod_labels: dict[str, str] = setting({}, help="Labels of the pods")
    pod_annotations: dict[str, str] = setting({}, help="Annotations of the pods")
    pod_overlay: dict[str, Any] = setting(
        {},
        help="Merged into the pod template (`metadata`, `spec`), lists of named items by name; the "
        "container is called `trainer` here, whatever the backend calls it",
    )


def folder() -> Path:
    """Return the chart's folder: inside an installed package, or next to it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    packaged = package / "charts" / "fedtrain"
    return packaged if packaged.is_dir() else package.parent / "charts" / "fedtrain"
