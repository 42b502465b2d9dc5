"""Owns the checks of the way to a cluster: server, clock, namespace, Helm, rights."""

import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from fedctl.cluster import errors, kinds
from fedctl.cluster.finding import FAIL, OK, UNKNOWN, WARN, Finding
from fedctl.errors import FedctlError

if TYPE_CHECKING:
    from fedctl.cluster.client import Cluster

AT_ONCE = 8  # requests
MOST_SKEW_SECONDS = 60
ROLE = "charts/fedtrain-platform makes a role with it"
FETCH_ROLE = "charts/fedtrain-platform makes a role with it where access.fetch is true"
LEVEL = "pod-security.kubernetes.io/enforce"

Right = tuple[str, str, str]  # verb, kind, subresource
PARTS = ("ConfigMap", "PersistentVolumeClaim", "Service", "NetworkPolicy")
# command -> (how bad it is without, the rights beside those on jobs)
RIGHTS: dict[str, tuple[str, Sequence[Right]]] = {
    "submit": (FAIL, [(verb, kind, "") for kind in PARTS for verb in ("create", "patch")]),
    "status": (FAIL, [("list", "Pod", ""), ("watch", "Pod", ""), ("list", "Event", "")]),
    "logs": (FAIL, [("list", "Pod", ""), ("get", "Pod", "log")]),
    "top": (WARN, [("get", "Pod", "proxy")]),
    "fetch": (WARN, [("create", "Pod", ""), ("delete", "Pod", ""), ("get", "Pod", "exec"),
                     ("create", "Pod", "exec")]),
    "cancel": (WARN, [("delete", kind, "") for kind in PARTS if kind != "PersistentVolumeClaim"]),
}  # fmt: skip
OF_JOBS = {"submit": ("create", "patch"), "status": ("get", "list"), "cancel": ("delete",)}


def server(cluster: "Cluster") -> Iterator[Finding]:
    """Reachable, new enough, and of the same opinion about the time."""
    answer = cluster.raw("GET", "/version")
    version = str(json.loads(answer.data).get("gitVersion", ""))
    wanted = oldest()
    where = f"{cluster.server} (context {cluster.context}) is Kubernetes {version}"
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
            yield Finding(WARN, text, "set the clock, or logins and certificates may be refused")


def oldest() -> tuple[int, int]:
    """The Kubernetes that the chart says it needs."""
    import yaml

    from fedctl import chart

    tree = yaml.safe_load((chart.folder() / "Chart.yaml").read_text("utf-8"))
    found = re.search(r"(\d+)\.(\d+)", tree["kubeVersion"])
    assert found
    return int(found[1]), int(found[2])


def namespace(cluster: "Cluster") -> Iterator[Finding]:
    """There, and what its Pod Security level lets in."""
    name = cluster.namespace
    try:
        found = cluster.get("Namespace", name)
    except errors.Forbidden:
        text = f"{name}: whether it is there, and its Pod Security level, may not be seen"
        yield Finding(UNKNOWN, text, "needs the right to get namespaces")
        return
    if found is None:
        yield Finding(FAIL, f"there is no namespace {name}", "name another with -n")
        return
    level = (found["metadata"].get("labels") or {}).get(LEVEL, "privileged")
    if level == "privileged":
        yield Finding(OK, f"{name} lets every pod in; RDMA profiles need --pod-security privileged")
    else:
        yield Finding(OK, f"{name} enforces Pod Security {level}: every profile but RDMA's")


def helm(cluster: "Cluster") -> Iterator[Finding]:
    """What renders a run."""
    from fedctl import helm as renderer

    try:
        yield Finding(OK, f"{renderer.program()} renders runs")
    except FedctlError as error:
        yield Finding(FAIL, str(error), "submit, diff and render need it; the rest does not")


def rights(cluster: "Cluster") -> Iterator[Finding]:
    """Of each command what it needs, as the server itself judges it."""
    backends = [
        kind for kind in ("PyTorchJob", "TrainJob", "TrainingRuntime") if _has(cluster, kind)
    ]
    needs = {
        command: [
            *((verb, kind, "") for kind in (*backends, "Job") for verb in OF_JOBS.get(command, ())),
            *more,
        ]
        for command, (_level, more) in RIGHTS.items()
    }
    every = sorted({right for wanted in needs.values() for right in wanted})
    with ThreadPoolExecutor(AT_ONCE) as pool:
        allowed = dict(zip(every, pool.map(lambda right: _may(cluster, right), every), strict=True))
    for command, wanted in needs.items():
        missing = [right for right in wanted if not allowed[right]]
        if not missing:
            yield Finding(OK, f"you may {command}")
            continue
        named = ", ".join(dict.fromkeys(map(_named, missing)))
        remedy = FETCH_ROLE if command == "fetch" else ROLE
        yield Finding(RIGHTS[command][0], f"{command}: you may not {named}", remedy)


def _has(cluster: "Cluster", kind: str) -> bool:
    group = kinds.of(kind).group
    return any(kind in served for served in cluster.api_versions(group).values())


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
    answer = json.loads(cluster.raw("POST", path, body=json.dumps(body)).data)
    return bool(answer["status"].get("allowed"))


def _named(right: Right) -> str:
    verb, kind, subresource = right
    resource = kinds.of(kind).resource
    return f"{verb} {resource}/{subresource}" if subresource else f"{verb} {resource}"
