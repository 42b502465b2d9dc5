"""Requests to a cluster: everything that fedctl reads or changes there goes through `Cluster`.

Objects stay plain dicts, because no client library knows half of the kinds that a run consists of.
"""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from fedctl.cluster.api import errors, execution, kinds, kubeconfig, watching
from fedctl.cluster.api.execution import Execution
from fedctl.cluster.api.kinds import Kind
from fedctl.cluster.api.server import OWNER, READ_SECONDS, Server, warnings

Object = dict[str, Any]

PAGE = 500  # objects of a list per answer
APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"
YAML = "application/yaml"
WRITE = {"fieldManager": OWNER, "fieldValidation": "Strict"}  # of every write


def connect(context: str | None = None, namespace: str | None = None) -> "Cluster":
    """Return the cluster that the options or the kubeconfig name. Sends no request yet."""
    return Cluster(kubeconfig.read(context, namespace))


class Cluster(Server):
    """An API server: paths, verbs and errors. What the objects mean is decided elsewhere."""

    def __init__(self, access: kubeconfig.Access) -> None:
        super().__init__(access)
        self._served: dict[str, dict[str, set[str]] | None] = {}

    # --- objects ----------------------------------------------------------------------------------

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """Return an object; None if it does not exist or its kind is not installed."""
        return self._found(self._path(kinds.of(kind), name, namespace))

    def live(self, obj: Object) -> Object | None:
        """Return the object as it is on the cluster, in the version of this one."""
        return self._found(self.path_of(obj))

    def _found(self, path: str) -> Object | None:
        try:
            answer: Object = self.json("GET", path)
            return answer
        except (errors.NotFound, errors.KindMissing):
            return None

    def list(
        self,
        kind: str,
        labels: Mapping[str, str] | str | None = None,
        fields: Mapping[str, str] | str | None = None,
        everywhere: bool = False,
        namespace: str | None = None,
    ) -> list[Object]:
        """Return all objects of a kind that the selectors match, in the namespace or `everywhere`.

        Raises KindMissing if the kind is not installed.
        """
        found, query = [], _selectors(labels, fields) | {"limit": str(PAGE)}
        path = self._path(kinds.of(kind), None, namespace, everywhere)
        while True:
            answer = self.json("GET", path, query=query)
            found += [_whole(obj, answer) for obj in answer["items"]]
            query["continue"] = answer["metadata"].get("continue") or ""
            if not query["continue"]:
                return found

    def apply(
        self, obj: Object, dry_run: bool = False, force: bool = False, text: str | None = None
    ) -> tuple[Object, Sequence[str]]:
        """Apply an object on the server side; return it as it is now, and the server's warnings.

        A field that the kind does not have is an error and is not dropped. `force` takes over
        fields that others own. `text`: the object as YAML, which is then what is sent.
        """
        query = WRITE | ({"force": "true"} if force else {})
        query |= {"dryRun": "All"} if dry_run else {}
        path = self.path_of(obj)
        answer = self.raw("PATCH", path, query=query, body=text or json.dumps(obj), content=APPLY)
        return self.tree(answer), warnings(answer)

    def create(self, obj: Object, text: str | None = None) -> Object:
        """Create an object; raise AlreadyExists if its name is taken. `text`: as for `apply`."""
        path = self.path_of(obj, named=False)
        body = text or json.dumps(obj)  # which is YAML too
        answer: Object = self.json("POST", path, query=WRITE, body=body, content=YAML)
        return answer

    def patch(
        self, kind: str, name: str, merge_patch: Object, namespace: str | None = None
    ) -> Object:
        """Change fields of an object by a JSON merge patch."""
        path = self._path(kinds.of(kind), name, namespace)
        body = json.dumps(merge_patch)
        answer: Object = self.json("PATCH", path, query=WRITE, body=body, content=MERGE)
        return answer

    def delete(
        self,
        kind: str,
        name: str,
        propagation: str = "Background",
        api_version: str | None = None,
        namespace: str | None = None,
        uid: str | None = None,
    ) -> bool:
        """Delete an object; return False if there was none. `uid`: only that very object."""
        options: Object = {"propagationPolicy": propagation}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            path = self._path(kinds.of(kind, api_version), name, namespace)
            self.json("DELETE", path, body=json.dumps(options))
        except (errors.NotFound, errors.KindMissing):
            return False
        return True

    def watch(
        self,
        kind: str,
        labels: Mapping[str, str] | str | None = None,
        name: str | None = None,
        timeout: float | None = None,
        fields: Mapping[str, str] | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[watching.Change]:
        """Yield what exists as ADDED, then every change, for `timeout` seconds or until `stop`.

        Reconnects when a connection drops, and lists again when the server has forgotten the
        version.
        """
        fields = dict(fields or {}) | ({"metadata.name": name} if name else {})
        query, path = _selectors(labels, fields), self._path(kinds.of(kind), None)

        def listed(more: dict[str, str]) -> Any:
            return self.json("GET", path, query=query | more)

        def watched(more: dict[str, str]) -> Iterator[str]:
            seconds = int(more["timeoutSeconds"]) + READ_SECONDS
            return self.lines("GET", path, query=query | more, read_seconds=seconds)

        return watching.changes(listed, watched, timeout, stop)

    # --- pods -------------------------------------------------------------------------------------

    def logs(
        self,
        pod: str,
        container: str | None = None,
        follow: bool = False,
        tail: int | None = None,
        since: float | None = None,
        previous: bool = False,
        timestamps: bool = False,
        since_time: str | None = None,
        silence: float | None = None,
    ) -> Iterator[str]:
        """Yield a container's log line by line as it is written; `since`: only the last seconds.

        Raises Unreachable if a log that is followed is silent for `silence` seconds: its connection
        may have died unnoticed.
        """
        query = {
            "container": container,
            "follow": "true" if follow else None,
            "previous": "true" if previous else None,
            "timestamps": "true" if timestamps else None,
            "tailLines": None if tail is None else str(tail),
            "sinceSeconds": None if since is None else str(max(1, round(since))),
            "sinceTime": since_time,
        }
        given = {key: value for key, value in query.items() if value is not None}
        path = f"{self._pod(pod)}/log"
        return self.lines(
            "GET", path, query=given, read_seconds=silence if follow else READ_SECONDS
        )

    def proxy(
        self, pod: str, port: int | str, path: str = "", seconds: float = READ_SECONDS
    ) -> str:
        """Return the answer of a pod's HTTP server, fetched by the API server."""
        where = f"{self._pod(f'{pod}:{port}')}/proxy/{path.lstrip('/')}"
        answer = self.raw("GET", where, accept="*/*", read_seconds=seconds)
        return str(answer.data, "utf-8", "replace")

    def exec(self, pod: str, container: str, command: Sequence[str]) -> Execution:
        """Run a command in a container; iterate over its stdout, then read its `status`."""
        query = [("container", container), ("stdout", "true"), ("stderr", "true")]
        query += [("command", word) for word in command]
        path = f"{self._pod(pod)}/exec"
        return execution.start(self._configuration, path, query, self._token())

    def _pod(self, name: str) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods/{quote(name, safe=':')}"

    # --- what is served ---------------------------------------------------------------------------

    def api_versions(self, group: str) -> dict[str, set[str]]:
        """Return an API group's versions, the preferred one first, each with its kinds; cached.

        Empty if the cluster does not have the group. The core group is "".
        """
        if group not in self._served:
            self._served[group] = self._discover(group)
        return self._served[group] or {}

    def _discover(self, group: str) -> dict[str, set[str]] | None:
        try:
            if group:
                answer = self.json("GET", f"/apis/{group}")
                versions = [entry["version"] for entry in answer["versions"]]
                first = (answer.get("preferredVersion") or {}).get("version")
                versions.sort(key=lambda version: version != first)
            else:
                versions = ["v1"]
            roots = {v: f"/apis/{group}/{v}" if group else f"/api/{v}" for v in versions}
            return {
                version: {
                    entry["kind"]
                    for entry in self.json("GET", root)["resources"]
                    if "/" not in entry["name"]
                }
                for version, root in roots.items()
            }
        except (errors.NotFound, errors.KindMissing):
            return None

    def serves(self, kind: str) -> bool:
        """Return whether the cluster has a kind, which needs no permission."""
        group, name = kinds.of(kind).group, kind.partition(".")[0]
        return any(name in served for served in self.api_versions(group).values())

    def version_of(self, kind: Kind) -> str:
        """Return the version to use for a kind: the first of ours that the cluster serves."""
        if len(kind.versions) == 1:
            return kind.versions[0]
        served = self.api_versions(kind.group)
        return next((version for version in kind.versions if version in served), kind.versions[0])

    def path_of(self, obj: Object, named: bool = True) -> str:
        """Return the path of an object, in the version that it states."""
        meta, version = obj["metadata"], obj["apiVersion"].rpartition("/")[2]
        kind = kinds.of(obj["kind"], obj["apiVersion"])
        namespace = meta.get("namespace") or self.namespace
        return kind.path(version, namespace, meta["name"] if named else None)

    def _path(
        self,
        kind: Kind,
        name: str | None,
        namespace: str | None = None,
        everywhere: bool = False,
    ) -> str:
        where = None if everywhere else namespace or self.namespace
        return kind.path(self.version_of(kind), where, name)


def _selectors(
    labels: Mapping[str, str] | str | None, fields: Mapping[str, str] | str | None
) -> dict[str, str]:
    def text(selector: Mapping[str, str] | str) -> str:
        if isinstance(selector, str):
            return selector
        return ",".join(f"{key}={value}" for key, value in selector.items())

    given = {"labelSelector": labels, "fieldSelector": fields}
    return {key: text(selector) for key, selector in given.items() if selector}


def _whole(obj: Object, answer: Object) -> Object:
    """Add to an item of a list its kind, which only the list itself has."""
    kind = str(answer.get("kind", "")).removesuffix("List")
    return {"apiVersion": answer.get("apiVersion"), "kind": kind} | obj
