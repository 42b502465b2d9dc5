"""The kinds of objects that fedctl uses: their API, and what installs it."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """The place of a kind in the API. Of several versions the first that is served is used."""

    group: str
    versions: tuple[str, ...]
    plural: str
    namespaced: bool = True

    @property
    def resource(self) -> str:
        """The name that RBAC and errors use, such as pytorchjobs.kubeflow.org."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def root(self, version: str) -> str:
        """Return the path of the API group in a version."""
        return f"/apis/{self.group}/{version}" if self.group else f"/api/{version}"

    def path(self, version: str, namespace: str | None, name: str | None = None) -> str:
        """Return the path of an object, of all objects of a namespace, or of all objects."""
        parts = [self.root(version)]
        if self.namespaced and namespace is not None:
            parts.append(f"namespaces/{namespace}")
        parts.append(self.plural)
        return "/".join([*parts, name] if name else parts)


def _kind(api: str, plural: str, namespaced: bool = True) -> Kind:
    """Parse group/version, or group/version,version."""
    group, _, versions = api.rpartition("/")
    return Kind(group, tuple(versions.split(",")), plural, namespaced)


KUBEFLOW, TRAINER, JOBSET = "kubeflow.org", "trainer.kubeflow.org", "jobset.x-k8s.io"
KUEUE, GANGS, VOLCANO = "kueue.x-k8s.io", "scheduling.k8s.io", "scheduling.volcano.sh"
MONITORING = "monitoring.coreos.com"

# Two groups have a kind of the same name; the add-on's is listed as `Kind.group`.
KINDS: Mapping[str, Kind] = {
    "ConfigMap": _kind("v1", "configmaps"),
    "Event": _kind("v1", "events"),
    "LimitRange": _kind("v1", "limitranges"),
    "Namespace": _kind("v1", "namespaces", False),
    "Node": _kind("v1", "nodes", False),
    "PersistentVolume": _kind("v1", "persistentvolumes", False),
    "PersistentVolumeClaim": _kind("v1", "persistentvolumeclaims"),
    "Pod": _kind("v1", "pods"),
    "ResourceQuota": _kind("v1", "resourcequotas"),
    "Service": _kind("v1", "services"),
    "Deployment": _kind("apps/v1", "deployments"),
    "Job": _kind("batch/v1", "jobs"),
    "NetworkPolicy": _kind("networking.k8s.io/v1", "networkpolicies"),
    "StorageClass": _kind("storage.k8s.io/v1", "storageclasses", False),
    "PodGroup": _kind(f"{GANGS}/v1beta1,v1alpha2", "podgroups"),
    "CustomResourceDefinition": _kind(
        "apiextensions.k8s.io/v1", "customresourcedefinitions", False
    ),
    "SelfSubjectAccessReview": _kind("authorization.k8s.io/v1", "selfsubjectaccessreviews", False),
    "PyTorchJob": _kind(f"{KUBEFLOW}/v1", "pytorchjobs"),
    "TrainJob": _kind(f"{TRAINER}/v1alpha1", "trainjobs"),
    "TrainingRuntime": _kind(f"{TRAINER}/v1alpha1", "trainingruntimes"),
    "JobSet": _kind(f"{JOBSET}/v1alpha2", "jobsets"),
    "ClusterQueue": _kind(f"{KUEUE}/v1beta2,v1beta1", "clusterqueues", False),
    "LocalQueue": _kind(f"{KUEUE}/v1beta2,v1beta1", "localqueues"),
    "Workload": _kind(f"{KUEUE}/v1beta2,v1beta1", "workloads"),
    f"PodGroup.{VOLCANO}": _kind(f"{VOLCANO}/v1beta1", "podgroups"),
    "PodMonitor": _kind(f"{MONITORING}/v1", "podmonitors"),
}

# API group -> how to install it, and how a run can do without it.
BROUGHT_BY: Mapping[str, str] = {
    KUBEFLOW: "install Kubeflow's training operator v1, 1.9.4 or newer, or use --backend job",
    TRAINER: "install Kubeflow Trainer v2, 2.3 or newer, or use --backend job",
    JOBSET: "install JobSet, which Kubeflow Trainer v2 needs, or use --backend job",
    KUEUE: "install Kueue, or drop --queue",
    VOLCANO: "install Volcano, or use another --queueing",
    GANGS: "its PodGroup comes with Kubernetes 1.36 and a feature gate; or use another --queueing",
    MONITORING: "install the Prometheus operator, or set podMonitor.enabled to false",
}


def of(kind: str, api_version: str | None = None) -> Kind:
    """Return a kind by its name; `api_version` distinguishes two kinds of the same name."""
    group = (api_version or "").rpartition("/")[0]
    found = KINDS.get(f"{kind}.{group}") or KINDS.get(kind)
    assert found is not None, f"fedctl.cluster.api.kinds has no {kind}"
    return found
