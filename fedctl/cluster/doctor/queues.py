"""Checks of queues, gang schedulers and monitoring: Kueue, Volcano, Kubernetes, Prometheus."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedctl.cluster.api import errors
from fedctl.cluster.doctor.finding import OK, UNKNOWN, WARN, Finding
from fedctl.cluster.status import job
from trainer.config import documents
from trainer.config.errors import ConfigError

if TYPE_CHECKING:
    from fedctl.cluster.api.client import Cluster

# As in Kueue's own manifests; other installations may use other names.
KUEUE_NAMESPACE, KUEUE_CONFIG = "kueue-system", "kueue-manager-config"
CONFIG_KEY = "controller_manager_config.yaml"


def kueue(cluster: "Cluster") -> Iterator[Finding]:
    """Check that Kueue is installed and has a queue in this namespace."""
    if not cluster.serves("LocalQueue"):
        yield Finding(OK, "Kueue is not installed: drop --queue")
        return
    queues = cluster.list("LocalQueue")
    if not queues:
        text = f"Kueue is installed, but namespace {cluster.namespace} has no LocalQueue"
        yield Finding(WARN, text, "set queue.clusterQueue in charts/fedtrain-platform")
    for queue in queues:
        name = queue["metadata"]["name"]
        for condition in (queue.get("status") or {}).get("conditions") or []:
            if condition["type"] == "Active" and condition["status"] == "False":
                why = condition.get("message") or condition.get("reason")
                yield Finding(
                    WARN, f"--queue {name}: not active: {why}", "ask the administrator of Kueue"
                )
                break
        else:
            yield Finding(OK, f"--queue {name}: to {queue['spec'].get('clusterQueue')}")


def integrations(cluster: "Cluster") -> Iterator[Finding]:
    """Check that Kueue manages the kinds of our jobs; others would stay suspended forever."""
    if not cluster.serves("LocalQueue"):
        return
    try:
        config = cluster.get("ConfigMap", KUEUE_CONFIG, namespace=KUEUE_NAMESPACE)
    except errors.Forbidden:
        config = None
    text = ((config or {}).get("data") or {}).get(CONFIG_KEY)
    if not text:
        yield Finding(
            UNKNOWN,
            f"cannot check which kinds Kueue manages: no permission to get configmaps in "
            f"{KUEUE_NAMESPACE}; since 0.19 PyTorchJobs only if configured",
        )
        return
    try:
        tree = documents.parse(text, f"{KUEUE_CONFIG}: {CONFIG_KEY}") or {}
        enabled = (tree.get("integrations") or {}).get("frameworks") or []
    except (ConfigError, AttributeError) as error:
        yield Finding(UNKNOWN, f"cannot check which kinds Kueue manages: {error}")
        return
    for kind, name in job.INTEGRATIONS.items():
        if kind != "Job" and not cluster.serves(kind):
            continue
        if name in enabled:
            yield Finding(OK, f"Kueue manages {kind}s")
        else:
            remedy = f"add {name} to integrations.frameworks in {KUEUE_CONFIG}"
            yield Finding(WARN, f"Kueue does not manage {kind}s: with --queue they wait", remedy)


def gangs(cluster: "Cluster") -> Iterator[Finding]:
    """Check for the other gang schedulers."""
    if cluster.serves("PodGroup.scheduling.volcano.sh"):
        text = "--queueing volcano: Volcano is installed"
        yield Finding(OK, f"{text}; PyTorchJobs need the operator's --gang-scheduler-name=volcano")
    else:
        yield Finding(OK, "--queueing volcano: Volcano is not installed")
    if cluster.serves("PodGroup"):
        yield Finding(OK, "--queueing native: this Kubernetes has gang scheduling")
    else:
        yield Finding(
            OK, "--queueing native: this Kubernetes has no gang scheduling, or it is disabled"
        )


def monitoring(cluster: "Cluster") -> Iterator[Finding]:
    """Check for the Prometheus operator."""
    if cluster.serves("PodMonitor"):
        yield Finding(
            OK,
            "PodMonitors are installed: charts/fedtrain-platform lets Prometheus scrape the ranks",
        )
    else:
        yield Finding(
            OK, "no Prometheus operator is installed; `fedctl top` reads the ranks directly"
        )
