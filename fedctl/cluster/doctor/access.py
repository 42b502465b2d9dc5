"""Checks of the access to a cluster: server, clock, namespace, Helm, permissions."""

import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from fedctl.cluster.api import errors, kinds
from fedctl.cluster.doctor.finding import FAIL, OK, UNKNOWN, WARN, Finding
from fedctl.errors import FedctlError
from trainer.config.secrets import redacted

if TYPE_CHECKING:
    from fedctl.cluster.api.client import Cluster

AT_ONCE = 8  # requests
MOST_SKEW_SECONDS = 60
ROLE = "charts/fedtrain-platform has a role with it"
FETCH_ROLE = "charts/fedtrain-platform has a role with it if access.fetch is true"
LEVEL = "pod-security.kubernetes.io/enforce"

Right = tuple[str, str, str]  # verb, kind, subresource
JOBS, CLAIM = ("PyTorchJob", "TrainJob", "Job"), "PersistentVolumeClaim"
PARTS = ("TrainingRuntime", "ConfigMap", "Service", "NetworkPolicy")
# Parts that few runs have.
NATIVE, VOLCANO, MONITOR = "PodGroup", f"PodGroup.{kinds.VOLCANO}", "PodMonitor"
# A submit compares with what exists; a server-side apply is a patch, and at first a create.
SEND = ("get", "create", "patch")


def _to(verbs: Sequence[str], *of: str) -> list[Right]:
    return [(verb, kind, "") for kind in of for verb in verbs]


# Command -> the level if its permissions are missing, and the permissions. diff needs those of
# submit, list and wait those of status, resume of suspend, gc of cancel. The role in
# charts/fedtrain-platform has them all.
RIGHTS: dict[str, tuple[str, Sequence[Right]]] = {
    "submit": (FAIL, _to(SEND, *JOBS, *PARTS, CLAIM)),
    "submit --queue": (WARN, _to(["get", "list"], "LocalQueue")),
    "submit --queueing native": (WARN, _to(SEND, NATIVE)),
    "submit --queueing volcano": (WARN, _to(SEND, VOLCANO)),
    "submit with podMonitor.enabled": (WARN, _to(SEND, MONITOR)),
    "status": (FAIL, [*_to(["get", "list", "watch"], *JOBS), *_to(["list", "watch"], "Pod"),
                      *_to(["list"], "ConfigMap", "Event"), *_to(["get", "list"], CLAIM)]),
    "status in a queue": (WARN, _to(["list", "watch"], "Workload")),
    "logs": (FAIL, [*_to(["get", "list"], "Pod"), ("get", "Pod", "log")]),
    "top": (WARN, [*_to(["list"], *JOBS, "Pod"), ("get", "Pod", "proxy")]),
    "fetch": (WARN, [*_to(["get", "list", "create", "delete"], "Pod"), ("get", "Pod", "exec"),
                     ("create", "Pod", "exec"), *_to(["get"], *JOBS, "TrainingRuntime", CLAIM)]),
    "suspend": (WARN, _to(["get", "patch"], *JOBS)),
    "suspend in a queue": (WARN, _to(["list", "patch"], "Workload")),
    "cancel": (WARN, _to(["list", "delete"], *JOBS, *PARTS)),
    "cancel --queueing native": (WARN, _to(["list", "delete"], NATIVE)),
    "cancel --queueing volcano": (WARN, _to(["list", "delete"], VOLCANO)),
    "cancel with podMonitor.enabled": (WARN, _to(["list", "delete"], MONITOR)),
    "cancel --purge": (WARN, _to(["list", "delete"], CLAIM)),
}  # fmt: skip


def server(cluster: "Cluster") -> Iterator[Finding]:
    """Check that the server is reachable and new enough, and that the clocks agree."""
    answer = cluster.raw("GET", "/version")
    version = str(cluster.tree(answer).get("gitVersion", ""))
    wanted = oldest()
    where = f"{redacted(cluster.server)} (context {cluster.context}) is Kubernetes {version}"
    found = re.match(r"v?(\d+)\.(\d+)", version)
    if found and (int(found[1]), int(found[2])) < wanted:
        need = ".".join(map(str, wanted))
        yield Finding(FAIL, where, f"the chart needs {need}: podFailurePolicy, indexes as labels")
    else:
        yield Finding(OK, where)
    if date := answer.headers.get("Date"):
        skew = abs((datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds())
        if skew > MOST_SKEW_SECONDS:
            text = f"this machine's clock and the server's differ by {skew:.0f} s"
            yield Finding(WARN, text, "set the clock, or logins and certificates may be rejected")


def oldest() -> tuple[int, int]:
    """Return the Kubernetes version that the chart needs."""
    from fedctl.chart import schema
    from trainer.config import documents

    tree = documents.read(schema.folder() / "Chart.yaml")
    found = re.search(r"(\d+)\.(\d+)", tree["kubeVersion"])
    assert found
    return int(found[1]), int(found[2])


def namespace(cluster: "Cluster") -> Iterator[Finding]:
    """Check that the namespace exists, and report its Pod Security level."""
    name = cluster.namespace
    try:
        found = cluster.get("Namespace", name)
    except errors.Forbidden:
        yield Finding(UNKNOWN, f"cannot check {name}: no permission to get namespaces")
        return
    if found is None:
        yield Finding(FAIL, f"namespace {name} does not exist", "name another with -n")
        return
    level = (found["metadata"].get("labels") or {}).get(LEVEL, "privileged")
    if level == "privileged":
        yield Finding(OK, f"{name} admits every pod; RDMA profiles need --pod-security privileged")
    else:
        yield Finding(OK, f"{name} enforces Pod Security {level}: every profile but RDMA's")


def helm(cluster: "Cluster") -> Iterator[Finding]:
    """Check that Helm is installed."""
    from fedctl.chart import helm as renderer

    try:
        yield Finding(OK, f"{renderer.program()} renders runs")
    except FedctlError as error:
        yield Finding(FAIL, str(error), "submit, diff and render need it; other commands do not")


def rights(cluster: "Cluster") -> Iterator[Finding]:
    """Check the permissions that each command needs on the kinds that are installed."""
    every = sorted({right for _level, wanted in RIGHTS.values() for right in wanted})
    there = {kind: _has(cluster, kind) for kind in {kind for _verb, kind, _sub in every}}
    every = [right for right in every if there[right[1]]]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        allowed = dict(zip(every, pool.map(lambda right: _may(cluster, right), every), strict=True))
    for command, (_level, wanted) in RIGHTS.items():
        missing = [right for right in wanted if not allowed.get(right, True)]
        if not missing:
            if " " not in command:  # variants of a command are reported only if they fail
                yield Finding(OK, f"you have permission to {command}")
            continue
        named = ", ".join(dict.fromkeys(map(_named, missing)))
        remedy = FETCH_ROLE if command == "fetch" else ROLE
        yield Finding(RIGHTS[command][0], f"{command}: no permission to {named}", remedy)


def _has(cluster: "Cluster", kind: str) -> bool:
    return kinds.of(kind).group not in kinds.BROUGHT_BY or cluster.serves(kind)


def _may(cluster: "Cluster", right: Right) -> bool:
    verb, kind, subresource = right
    found = kinds.of(kind)
    asked = {
        "namespace": cluster.namespace,
        "verb": verb,
        "group": found.group,
        "resource": found.plural,
        "subresource": subresource,
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    }
    answer = cluster.json("POST", path, body=json.dumps(body))
    return bool(answer["status"].get("allowed"))


def _named(right: Right) -> str:
    verb, kind, subresource = right
    resource = kinds.of(kind).resource
    return f"{verb} {resource}/{subresource}" if subresource else f"{verb} {resource}"
