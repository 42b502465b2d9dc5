"""Sending a run to a cluster: all of it or nothing, and never over an existing run."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from fedctl.cluster.api import errors
from fedctl.cluster.status import job
from fedctl.errors import FedctlError, RunError, UserError

if TYPE_CHECKING:
    from fedctl.cluster.api.client import Cluster

Object = dict[str, Any]

# The optional kinds whose presence the chart checks.
LOOKED_AT = (
    ("monitoring.coreos.com", "PodMonitor"),
    ("scheduling.k8s.io", "PodGroup"),
)
# What must exist before the job: pods need the first ones, Trainer's webhook the last.
FIRST = "ConfigMap"
ORDER = (FIRST, "PersistentVolumeClaim", "Service", "NetworkPolicy", "PodMonitor",
         "PodGroup", "TrainingRuntime")  # fmt: skip
HOOK = "helm.sh/hook"
RUNTIME_SECONDS = 15  # for Trainer to notice a new TrainingRuntime
# Metadata that the server adds to an object.
BOOKKEEPING = ("creationTimestamp", "generation", "managedFields", "resourceVersion", "uid")
CREATED, CONFIGURED, UNCHANGED = "created", "configured", "unchanged"


@dataclass(frozen=True)
class Sent:
    """An object as it was rendered, and what the cluster did with it."""

    obj: Object
    result: str
    warnings: Sequence[str] = ()

    @property
    def what(self) -> str:
        """The object as kubectl names it: pytorchjob.kubeflow.org/digits."""
        return name_of(self.obj)


@dataclass(frozen=True)
class Document:
    """An object and the exact text that Helm rendered, which is what is sent."""

    obj: Object
    text: str


def api_versions(cluster: "Cluster") -> list[str]:
    """Return the `--api-versions` that `fedctl render` needs for this cluster."""
    return [
        f"{group}/{version}/{kind}"
        for group, kind in LOOKED_AT
        for version, served in sorted(cluster.api_versions(group).items())
        if kind in served
    ]


def documents(rendered: str) -> list[Document]:
    """Return the objects of a run in the order of their creation; the job comes last.

    Hooks are kept if Helm would run them at an install, since the chart has its TrainingRuntime
    created by one; tests and other hooks are no part of a run.
    """
    found = []
    for text in re.split(r"^---[ \t]*\n", rendered, flags=re.M):
        obj = yaml.safe_load(text)
        if not obj:
            continue
        hook = (obj["metadata"].get("annotations") or {}).get(HOOK, "pre-install")
        if "pre-install" in hook:
            found.append(Document(obj, text))
    return sorted(found, key=lambda document: _place(document.obj["kind"]))


def _place(kind: str) -> int:
    if kind in job.KINDS:
        return len(ORDER) + 1
    return ORDER.index(kind) if kind in ORDER else len(ORDER)


def name_of(obj: Mapping[str, Any]) -> str:
    """Return kind.group/name, in lower case."""
    group = obj["apiVersion"].rpartition("/")[0]
    kind = obj["kind"].lower() + (f".{group}" if group else "")
    return f"{kind}/{obj['metadata']['name']}"


# --- sending --------------------------------------------------------------------------------------


def submit(cluster: "Cluster", run: str, found: Sequence[Document]) -> list[Sent]:
    """Create the objects, or report that they exist unchanged; on an error leave nothing behind.

    An existing run of this name is never changed.
    """
    there = job.find(cluster, run)
    if there is not None:
        return _again(cluster, run, there, found)
    _rehearse(cluster, found)
    sent: list[Sent] = []
    try:
        for document in found:
            sent.append(_send_patiently(cluster, document, found))
    except BaseException as error:
        left = _undo(cluster, sent)
        if isinstance(error, FedctlError) and left:
            raise RunError(f"{error}; left behind: {', '.join(left)}") from None
        raise
    return sent


def _rehearse(cluster: "Cluster", found: Sequence[Document]) -> None:
    """Apply all objects as a dry run, so that most refusals come before anything is created."""
    for document in found:
        try:
            cluster.apply(document.obj, dry_run=True, text=document.text)
        except errors.ApiError as error:
            if not _wants_its_runtime(document.obj, found, error):
                raise


def _wants_its_runtime(obj: Object, found: Sequence[Document], error: errors.ApiError) -> bool:
    """Return whether a TrainJob was refused only because its runtime does not exist yet."""
    kind_of_all = {document.obj["kind"] for document in found}
    words = error.message.lower()
    return (
        obj["kind"] == "TrainJob"
        and "TrainingRuntime" in kind_of_all
        and "runtime" in words
        and ("not found" in words or "must be created before" in words)
    )


def _send_patiently(cluster: "Cluster", document: Document, found: Sequence[Document]) -> Sent:
    """Send an object; retry while Trainer's webhook does not know the new runtime yet."""
    end = time.monotonic() + RUNTIME_SECONDS
    while True:
        try:
            return _send(cluster, document)
        except errors.ApiError as error:
            if not _wants_its_runtime(document.obj, found, error) or time.monotonic() > end:
                raise
            time.sleep(0.5)


def _send(cluster: "Cluster", document: Document, dry_run: bool = False) -> Sent:
    before = cluster.live(document.obj)
    if before is None and document.obj["kind"] == FIRST and not dry_run:
        # Of two simultaneous submits of one name the second ends here; an apply would merge them.
        return Sent(_create(cluster, document), CREATED)
    after, warned = cluster.apply(document.obj, dry_run=dry_run, text=document.text)
    if before is None:
        return Sent(after, CREATED, warned)
    return Sent(after, UNCHANGED if same(before, after) else CONFIGURED, warned)


def _create(cluster: "Cluster", document: Document) -> Object:
    try:
        return cluster.create(document.obj, text=document.text)
    except errors.AlreadyExists:
        raise UserError(
            f"{name_of(document.obj)} was created by another submit just now; choose another "
            "--name, or check with `fedctl list`"
        ) from None


def _undo(cluster: "Cluster", sent: Sequence[Sent]) -> list[str]:
    """Delete what was created, the last first; return what could not be deleted."""
    left = []
    for made in reversed(sent):
        if made.result != CREATED:
            continue
        meta, kind = made.obj["metadata"], made.obj["kind"]
        try:
            api = made.obj["apiVersion"]
            cluster.delete(kind, meta["name"], api_version=api, uid=meta.get("uid"))
        except FedctlError:
            left.append(made.what)
    return left


def _again(
    cluster: "Cluster", run: str, there: Mapping[str, Any], found: Sequence[Document]
) -> list[Sent]:
    """Handle a submit of an existing name: accept the same run, refuse any other."""
    if there["metadata"].get("deletionTimestamp"):
        remedy = f"choose another --name, or submit it after `fedctl wait {run} --for deleted`"
        raise UserError(f"{run} is still being deleted; {remedy}")
    end = job.ended(there)
    state = end.word if end else "suspended" if job.suspended(there) else "running"
    try:
        sent = [_compare(cluster, document) for document in found]
        identical = all(one.result == UNCHANGED for one in sent)
    except (errors.Refused, errors.Conflict):
        identical = False
    if identical and there["kind"] == found[-1].obj["kind"]:
        return sent
    raise UserError(
        f"{run}: another run in namespace {cluster.namespace} has this name and "
        f"{'has ' if end else 'is '}{state}; choose another --name, or remove it "
        f"with `fedctl cancel {run}`"
    )


def _compare(cluster: "Cluster", document: Document) -> Sent:
    """Return what sending an object again would change, except whether it is suspended."""
    before = cluster.live(document.obj)
    after, warned = cluster.apply(document.obj, dry_run=True, force=True, text=document.text)
    if before is None:
        return Sent(after, CREATED, warned)
    unchanged = same(before, after, but_for=("suspend",))
    return Sent(after, UNCHANGED if unchanged else CONFIGURED, warned)


def rehearsal(cluster: "Cluster", run: str, found: Sequence[Document]) -> list[Sent]:
    """Return what a submit would do with each object, under strict validation; change nothing."""
    there = job.find(cluster, run)
    if there is not None:
        return _again(cluster, run, there, found)
    sent = []
    for document in found:
        try:
            sent.append(_send(cluster, document, dry_run=True))
        except errors.ApiError as error:
            if not _wants_its_runtime(document.obj, found, error):
                raise
            note = "checked only once its TrainingRuntime exists"
            sent.append(Sent(document.obj, CREATED, [note]))
    return sent


def same(before: Mapping[str, Any], after: Mapping[str, Any], but_for: Sequence[str] = ()) -> bool:
    """Return whether two objects are equal apart from the server's bookkeeping."""
    return _bare(before, but_for) == _bare(after, but_for)


def _bare(obj: Mapping[str, Any], but_for: Sequence[str]) -> Object:
    kept = {key: value for key, value in obj.items() if key != "status"}
    meta = {key: value for key, value in obj["metadata"].items() if key not in BOOKKEEPING}
    spec = obj.get("spec")
    if isinstance(spec, dict) and but_for:
        spec = {key: value for key, value in spec.items() if key not in but_for}
        if isinstance(policy := spec.get("runPolicy"), dict):
            spec["runPolicy"] = {k: value for k, value in policy.items() if k not in but_for}
        kept["spec"] = spec
    return kept | {"metadata": meta}
