"""Owns how a run gets onto a cluster: all of it or nothing, and never over a run that is there."""

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

# The kinds whose presence the chart looks at, beside Kubernetes' own that all clusters have.
LOOKED_AT = (
    ("monitoring.coreos.com", "PodMonitor"),
    ("scheduling.k8s.io", "PodGroup"),
)
# What a job needs before it: pods look for the first ones, Trainer refuses a job without the last.
FIRST = "ConfigMap"
ORDER = (FIRST, "PersistentVolumeClaim", "Service", "NetworkPolicy", "PodMonitor",
         "PodGroup", "TrainingRuntime")  # fmt: skip
HOOK = "helm.sh/hook"
RUNTIME_SECONDS = 15  # for Trainer to see a TrainingRuntime that was just made
# What the server keeps about an object, and no rendering says.
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
        """As kubectl names it: pytorchjob.kubeflow.org/digits."""
        return name_of(self.obj)


@dataclass(frozen=True)
class Document:
    """An object and the very text that Helm rendered, which is what is sent."""

    obj: Object
    text: str


def api_versions(cluster: "Cluster") -> list[str]:
    """What `fedctl render --api-versions` would be told of this cluster."""
    return [
        f"{group}/{version}/{kind}"
        for group, kind in LOOKED_AT
        for version, served in sorted(cluster.api_versions(group).items())
        if kind in served
    ]


def documents(rendered: str) -> list[Document]:
    """The objects of a run in the order in which they can be made; the job is the last one.

    Hooks are kept if Helm would run them at an install, which is how the chart has a
    TrainingRuntime made first; tests and other hooks are no part of a run.
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
    """kind.group/name, in lower case."""
    group = obj["apiVersion"].rpartition("/")[0]
    kind = obj["kind"].lower() + (f".{group}" if group else "")
    return f"{kind}/{obj['metadata']['name']}"


# --- sending --------------------------------------------------------------------------------------


def submit(cluster: "Cluster", run: str, found: Sequence[Document]) -> list[Sent]:
    """Makes the objects, or says that they are there as they are; else raises, and leaves nothing.

    A run that has the name already is never changed.
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
    """Most refusals come before anything is made: validation, missing rights, webhooks."""
    for document in found:
        try:
            cluster.apply(document.obj, dry_run=True, text=document.text)
        except errors.ApiError as error:
            if not _wants_its_runtime(document.obj, found, error):
                raise


def _wants_its_runtime(obj: Object, found: Sequence[Document], error: errors.ApiError) -> bool:
    """A TrainJob is refused as long as the runtime that goes before it is only rehearsed."""
    kind_of_all = {document.obj["kind"] for document in found}
    words = error.message.lower()
    return (
        obj["kind"] == "TrainJob"
        and "TrainingRuntime" in kind_of_all
        and "runtime" in words
        and ("not found" in words or "must be created before" in words)
    )


def _send_patiently(cluster: "Cluster", document: Document, found: Sequence[Document]) -> Sent:
    """Trainer's webhook may learn of a runtime some moments after it was made."""
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
        # Of two submits of one name at one moment the second ends here: an apply would merge them.
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
            f"{name_of(document.obj)} was made by somebody else just now; choose another --name, "
            "or look with `fedctl list`"
        ) from None


def _undo(cluster: "Cluster", sent: Sequence[Sent]) -> list[str]:
    """Removes what was made, the last first; what could not be removed."""
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
    """The same run sent a second time; anything else of its name is refused."""
    if there["metadata"].get("deletionTimestamp"):
        remedy = f"choose another --name, or submit it after `fedctl wait {run} --for deleted`"
        raise UserError(f"{run} is still being removed; {remedy}")
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
        f"{run} is taken by a run in namespace {cluster.namespace} that is not this one, "
        f"{'and has ' + state if end else 'and is ' + state}; choose another --name, or remove it "
        f"with `fedctl cancel {run}`"
    )


def _compare(cluster: "Cluster", document: Document) -> Sent:
    """What sending it again would change; whether it is suspended is not ours to say by now."""
    before = cluster.live(document.obj)
    after, warned = cluster.apply(document.obj, dry_run=True, force=True, text=document.text)
    if before is None:
        return Sent(after, CREATED, warned)
    unchanged = same(before, after, but_for=("suspend",))
    return Sent(after, UNCHANGED if unchanged else CONFIGURED, warned)


def rehearsal(cluster: "Cluster", run: str, found: Sequence[Document]) -> list[Sent]:
    """What a submit would do with each object, under strict validation; nothing is changed."""
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
            note = "checked only once its TrainingRuntime is there"
            sent.append(Sent(document.obj, CREATED, [note]))
    return sent


def same(before: Mapping[str, Any], after: Mapping[str, Any], but_for: Sequence[str] = ()) -> bool:
    """Whether two objects say the same, but for what the server keeps about them."""
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
