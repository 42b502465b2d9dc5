"""Checks of the available resources: quota, limits, GPUs, storage."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from fedctl.cluster.api import errors
from fedctl.cluster.doctor.finding import OK, UNKNOWN, WARN, Finding

if TYPE_CHECKING:
    from fedctl.cluster.api.client import Cluster

Object = Mapping[str, Any]

GPU = "nvidia.com/gpu"
# Pods that still hold resources; the others may be most of a cluster's.
ALIVE = "status.phase!=Succeeded,status.phase!=Failed"
DEFAULT = "storageclass.kubernetes.io/is-default-class"
# Parts of the names of provisioners whose volumes many nodes can write to.
SHARED = ("nfs", "cephfs", "efs.csi", "filestore", "file.csi.azure", "lustre", "gpfs", "weka",
          "beegfs", "longhorn", "portworx", "glusterfs", "juicefs")  # fmt: skip


def quota(cluster: "Cluster") -> Iterator[Finding]:
    """Check what is left of the namespace's quota, and the limits of a single pod."""
    full = []
    quotas = cluster.list("ResourceQuota")
    for found in quotas:
        status = found.get("status") or {}
        used = status.get("used") or {}
        for resource, hard in (status.get("hard") or {}).items():
            if number(used.get(resource, "0")) >= number(hard):
                full.append(f"{resource} {used.get(resource)} of {hard}")
    if full:
        yield Finding(
            WARN, f"quota is used up: {', '.join(full)}", "wait for other runs, or ask for more"
        )
    elif quotas:
        rooms = [_room(found) for found in quotas]
        yield Finding(OK, f"quota: {'; '.join(rooms)}")
    else:
        yield Finding(OK, f"namespace {cluster.namespace} has no quota")
    yield from _limits(cluster)


def _room(found: Object) -> str:
    status = found.get("status") or {}
    used = status.get("used") or {}
    pairs = [
        f"{name} {used.get(name, 0)} of {hard}" for name, hard in (status.get("hard") or {}).items()
    ]
    return ", ".join(pairs)


def _limits(cluster: "Cluster") -> Iterator[Finding]:
    from fedctl.chart.schema import Values

    ask = Values().resources
    wanted = (ask.memory_mib + ask.shared_memory_mib) * 2**20
    for found in cluster.list("LimitRange"):
        for limit in found["spec"].get("limits") or []:
            most = (limit.get("max") or {}).get("memory")
            if most and number(most) < wanted:
                text = f"a {limit['type'].lower()} may take {most} of memory at most"
                remedy = "set resources.memoryMiB and sharedMemoryMiB below it, with --values"
                yield Finding(WARN, f"{text}, and a rank requests {wanted // 2**20}Mi", remedy)


def gpus(cluster: "Cluster") -> Iterator[Finding]:
    """Count the GPUs, and those that are free."""
    try:
        nodes = cluster.list("Node")
    except errors.Forbidden:
        yield Finding(UNKNOWN, "cannot count GPUs: no permission to list nodes")
        return
    there = {node["metadata"]["name"]: _gpus_of(node) for node in nodes if _usable(node)}
    total = sum(there.values())
    if not total:
        yield Finding(WARN, f"no node offers {GPU}", "train on CPUs with --gpus 0")
        return
    try:
        pods = cluster.list("Pod", fields=ALIVE, everywhere=True)
    except errors.Forbidden:
        yield Finding(OK, f"{total} GPUs on {sum(map(bool, there.values()))} nodes")
        return
    taken = sum(_taken(pod) for pod in pods if (pod.get("spec") or {}).get("nodeName") in there)
    text = f"{total - taken} of {total} GPUs are free"
    if taken >= total:
        yield Finding(WARN, text, "runs will wait; --queue shares them fairly, --gpus 0 needs none")
    else:
        yield Finding(OK, text)


def _usable(node: Object) -> bool:
    return not (node.get("spec") or {}).get("unschedulable")


def _gpus_of(node: Object) -> int:
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    return int(number(allocatable.get(GPU, "0")))


def _taken(pod: Object) -> int:
    wanted = [((c.get("resources") or {}).get("limits") or {}).get(GPU, "0")
             for c in pod["spec"]["containers"]]  # fmt: skip
    return sum(int(number(text)) for text in wanted)


def storage(cluster: "Cluster") -> Iterator[Finding]:
    """Check for a default storage class, and for one that several ranks can share."""
    try:
        classes = cluster.list("StorageClass")
    except errors.Forbidden:
        text = "cannot check storage classes: no permission to list storageclasses.storage.k8s.io"
        yield Finding(UNKNOWN, text)
        return
    default = [c["metadata"]["name"] for c in classes if _default(c)]
    shared = [c["metadata"]["name"] for c in classes if _shared(c)]
    if not classes:
        yield Finding(
            WARN, "no storage class exists", "set storage.runs.claim to an existing claim"
        )
        return
    names = ", ".join(c["metadata"]["name"] for c in classes)
    if default:
        yield Finding(OK, f"storage class {default[0]} is the default")
    else:
        yield Finding(
            WARN, f"no storage class is the default ({names})", "name one: --storage-class"
        )
    if shared:
        yield Finding(OK, f"ranks can share a volume of class {', '.join(shared)}")
    else:
        remedy = (
            "name one that can with --storage-class, keep runs at a storage.url, or run with "
            "--ranks 1"
        )
        text = f"no class is known to create volumes that several nodes can write to ({names})"
        yield Finding(WARN, text, remedy)


def _default(found: Object) -> bool:
    return (found["metadata"].get("annotations") or {}).get(DEFAULT) == "true"


def _shared(found: Object) -> bool:
    return any(part in str(found.get("provisioner", "")) for part in SHARED)


def number(text: Any) -> Decimal:
    """Parse a Kubernetes quantity: 4, 500m, 16Gi."""
    from kubernetes.utils.quantity import parse_quantity

    return Decimal(parse_quantity(str(text)))
