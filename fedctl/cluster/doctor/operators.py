"""Checks of the operators that run the pods: installed, new enough for the chart, running."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import yaml

from fedctl.cluster.api import errors, kinds
from fedctl.cluster.doctor.finding import FAIL, OK, UNKNOWN, WARN, Finding

if TYPE_CHECKING:
    from fedctl.cluster.api.client import Cluster

Object = Mapping[str, Any]

BACKENDS = {"pytorchjob": ("PyTorchJob",), "trainjob": ("TrainJob", "TrainingRuntime", "JobSet")}
# Suffix of a Deployment's name -> its operator's kind; Helm releases add a prefix.
DEPLOYMENTS = {
    "training-operator": "PyTorchJob",
    "trainer-controller-manager": "TrainJob",
    "jobset-controller-manager": "JobSet",
    "kueue-controller-manager": "LocalQueue",
}
PRESET = "gwpf-digits"
# Options of `fedctl render` -> the chart's values for them.
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "": {"deadlineSeconds": 3600, "ttlSecondsAfterFinished": 3600},
    "--queueing native": {"queue.kind": "native"},
    "--queueing kueue": {"queue.kind": "kueue", "queue.name": "q"},
    "--queueing volcano": {"queue.kind": "volcano", "queue.name": "q"},
}


def backends(cluster: "Cluster") -> Iterator[Finding]:
    """Check which of the three backends are installed."""
    for backend, wanted in BACKENDS.items():
        missing = [kind for kind in wanted if not cluster.serves(kind)]
        if missing:
            remedy = kinds.BROUGHT_BY[kinds.of(missing[0]).group]
            yield Finding(WARN, f"--backend {backend}: not installed: {', '.join(missing)}", remedy)
        else:
            of = kinds.of(wanted[0])
            api = f"{of.group}/{cluster.version_of(of)}"
            yield Finding(OK, f"--backend {backend}: {wanted[0]} is installed ({api})")
    yield Finding(OK, "--backend job: part of Kubernetes, always available")


def fields(cluster: "Cluster") -> Iterator[Finding]:
    """Check for fields of the chart that the cluster's kinds do not have and would drop."""
    for backend, wanted in BACKENDS.items():
        if not all(cluster.serves(kind) for kind in wanted):
            continue
        schemas = {kind: _schema(cluster, kind) for kind in wanted[:2] if kind != "JobSet"}
        if not all(schemas.values()):
            yield Finding(
                UNKNOWN, f"--backend {backend}: the server publishes no schema of its kinds"
            )
            continue
        usual: set[str] = set()
        for shape, options in SHAPES.items():
            lost = set(_lost(cluster, backend, options, schemas)) - usual
            usual |= lost if not shape else set()
            if lost:
                first = sorted(lost)[0]
                more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
                level = WARN if shape else FAIL
                text = f"--backend {backend}{' ' if shape else ''}{shape}: {first}{more} is unknown"
                yield Finding(
                    level, text, f"upgrade: {kinds.BROUGHT_BY[kinds.of(wanted[0]).group]}"
                )
        if not usual:
            yield Finding(OK, f"--backend {backend}: its kinds have every field of the chart")


def _schema(cluster: "Cluster", kind: str) -> tuple[Object, Object] | None:
    """Return the schema of a kind, and all others, from the server's public OpenAPI."""
    of = kinds.of(kind)
    try:
        path = f"/openapi/v3/apis/{of.group}/{cluster.version_of(of)}"
        answer = cluster.json("GET", path)
    except (errors.NotFound, errors.KindMissing):
        return None
    every: Object = (answer.get("components") or {}).get("schemas") or {}
    for schema in every.values():
        names = schema.get("x-kubernetes-group-version-kind") or []
        if any(name.get("kind") == kind for name in names):
            return schema, every
    return None


def _lost(
    cluster: "Cluster", backend: str, options: Mapping[str, Any], schemas: Mapping[str, Any]
) -> Iterator[str]:
    """Yield the fields of a rendered run that its kinds do not have."""
    from fedctl.chart import helm, values

    release = values.release(
        PRESET, ["ranks=2"], namespace=cluster.namespace, options={"backend": backend, **options}
    )
    for obj in yaml.safe_load_all(helm.template(release)):
        if obj and obj["kind"] in schemas:
            schema, every = schemas[obj["kind"]]
            yield from unknown(obj["spec"], schema["properties"]["spec"], every, "spec")


def unknown(value: Any, schema: Object, every: Object, path: str) -> Iterator[str]:
    """Yield the paths in a value that the schema does not have: the API server would drop them."""
    schema = _resolved(schema, every)
    if isinstance(value, list):
        for item in value:
            yield from unknown(item, schema.get("items") or {}, every, f"{path}[]")
    if not isinstance(value, dict) or schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    properties, others = schema.get("properties"), schema.get("additionalProperties")
    for key, item in value.items():
        below = f"{path}.{key}"
        if properties and key in properties:
            yield from unknown(item, properties[key], every, below)
        elif isinstance(others, dict):
            yield from unknown(item, others, every, below)
        elif properties and not others:
            yield below


def _resolved(schema: Object, every: Object) -> Object:
    """Follow a reference; if it has a default, it is the only item of `allOf`."""
    while "$ref" in schema or len(schema.get("allOf") or []) == 1:
        inner = schema if "$ref" in schema else schema["allOf"][0]
        if "$ref" not in inner:
            return {**inner, **{k: v for k, v in schema.items() if k != "allOf"}}
        schema = every.get(inner["$ref"].rpartition("/")[2], {})
    return schema


def alive(cluster: "Cluster") -> Iterator[Finding]:
    """Check the operators' Deployments, if they may be listed."""
    there = {name: kind for name, kind in DEPLOYMENTS.items() if cluster.serves(kind)}
    if not there:
        return
    probe = "`fedctl submit ... --dry-run server` contacts their webhooks"
    try:
        found = cluster.list("Deployment", everywhere=True)
    except errors.Forbidden:
        yield Finding(
            UNKNOWN, f"cannot check {', '.join(there)}: no permission to list deployments", probe
        )
        return
    for ending, kind in there.items():
        mine = [d for d in found if d["metadata"]["name"].endswith(ending)]
        if not mine:
            yield Finding(WARN, f"{kind} is installed, but no Deployment ...{ending}", probe)
        for deployment in mine:
            meta, status = deployment["metadata"], deployment.get("status") or {}
            image = deployment["spec"]["template"]["spec"]["containers"][0].get("image", "")
            text = f"{meta['namespace']}/{meta['name']} ({image.rpartition('/')[2]})"
            if status.get("availableReplicas"):
                yield Finding(OK, f"{text} is running")
            else:
                remedy = f"see `kubectl describe deployment -n {meta['namespace']} {meta['name']}`"
                yield Finding(
                    FAIL if kind != "LocalQueue" else WARN, f"{text} is not running", remedy
                )
