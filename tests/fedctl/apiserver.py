"""An API server over real HTTP, as far as fedctl asks one: for tests that need no cluster.

Objects, server-side apply with owners of fields, dry runs, merge patches, selectors, pages, watches
that can be dropped or forgotten, discovery, and refusals in Kubernetes' own words. It has no
operators: a test plays them with `put`.
"""

import copy
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

import yaml

from fedctl.cluster.api import kinds

Object = dict[str, Any]
Key = tuple[str, str, str, str]  # group, plural, namespace, name

KINDS = {
    (kind.group, kind.plural): (name.split(".")[0], kind) for name, kind in kinds.KINDS.items()
}
PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>[^/]+)(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>.+))?)?$"
)


@dataclass
class Request:
    """What was asked."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: str

    @property
    def content(self) -> Any:
        """The body, which is YAML or JSON."""
        return yaml.safe_load(self.body)

    @property
    def dry(self) -> bool:
        return self.query.get("dryRun") == "All"


class Refusal(Exception):
    """A Status, as Kubernetes answers with."""

    def __init__(self, code: int, reason: str, message: str, details: Object | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.body = {
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
            "reason": reason, "message": message, "details": details or {},
        }  # fmt: skip


class PlainRefusal(Exception):
    """What is not even a Status: the text of a path that nobody serves."""


class ApiServer:
    """The state; tests read `requests` and `objects`, and play everybody else."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.objects: dict[Key, Object] = {}
        self.owners: dict[Key, dict[str, str]] = {}
        self.history: list[tuple[int, str, Key, Object]] = []
        self.version, self.oldest, self.drops = 100, 0, 0
        self.missing: set[str] = set()  # groups that the cluster lacks
        self.requests: list[Request] = []
        self.faults: list[tuple[Callable[[Request], bool], Exception]] = []
        self.warnings: dict[str, str] = {}  # kind -> what is warned of when it is applied
        self.texts: dict[str, str] = {}  # path of a log or a proxy -> what it says
        self.on_delete: Callable[[Object], None] | None = None

    # --- what tests play --------------------------------------------------------------------------

    def put(self, obj: Object, owner: str = "operator") -> Object:
        """An object comes to be, or changes, as by somebody else."""
        key = self.key_of(obj)
        with self.lock:
            return self._store(key, _merged(self.objects.get(key, {}), obj), owner, obj)

    def remove(self, kind: str, name: str, namespace: str = "lab") -> None:
        """An object goes, as by somebody else."""
        with self.lock:
            self._gone(self.key(kind, name, namespace))

    def find(self, kind: str, name: str, namespace: str = "lab") -> Object | None:
        return self.objects.get(self.key(kind, name, namespace))

    def key(self, kind: str, name: str, namespace: str = "lab") -> Key:
        found = kinds.of(kind)
        return found.group, found.plural, namespace if found.namespaced else "", name

    def key_of(self, obj: Object) -> Key:
        found, meta = kinds.of(obj["kind"], obj["apiVersion"]), obj["metadata"]
        space = meta.get("namespace", "lab") if found.namespaced else ""
        return found.group, found.plural, space, meta["name"]

    def refuse(self, method: str, path: str, error: Exception, dry: bool | None = None) -> None:
        """From now on requests that a pattern matches are refused; `dry`: only those, or not."""

        def meant(request: Request) -> bool:
            fits = request.method == method and re.search(path, request.path) is not None
            return fits and dry in (None, request.dry)

        self.faults.insert(0, (meant, error))

    def drop(self) -> None:
        """Ends every watch in the middle, as a load balancer does."""
        with self.lock:
            self.drops += 1
            self.lock.notify_all()

    def forget(self) -> None:
        """Compacts the history: watches from before are answered 410."""
        with self.lock:
            self.version += 1
            self.oldest = self.version
            self.history.clear()
            self.drops += 1
            self.lock.notify_all()

    def sent(self, method: str = "PATCH|POST", dry: bool = False) -> list[Request]:
        """The requests that were to change something."""
        return [r for r in self.requests if r.method in method.split("|") and r.dry == dry]

    # --- storage ----------------------------------------------------------------------------------

    def _store(self, key: Key, obj: Object, owner: str, given: Object) -> Object:
        before = self.objects.get(key)
        obj = copy.deepcopy(obj)
        meta = obj.setdefault("metadata", {})
        meta.setdefault("uid", str(uuid.uuid4()))
        meta.setdefault("creationTimestamp", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        if KINDS[key[:2]][1].namespaced:
            meta.setdefault("namespace", key[2])
        if before is not None and _bare(before) == _bare(obj):
            return before
        self.owners.setdefault(key, {}).update({path: owner for path, _ in _leaves(given)})
        self.version += 1
        meta["resourceVersion"] = str(self.version)
        meta["managedFields"] = [{"manager": owner, "operation": "Apply"}]
        self.objects[key] = obj
        self._note("ADDED" if before is None else "MODIFIED", key, obj)
        return obj

    def _gone(self, key: Key) -> None:
        self.owners.pop(key, None)
        if obj := self.objects.pop(key, None):
            self.version += 1
            obj["metadata"]["resourceVersion"] = str(self.version)
            self._note("DELETED", key, obj)

    def _note(self, how: str, key: Key, obj: Object) -> None:
        self.history.append((self.version, how, key, copy.deepcopy(obj)))
        self.lock.notify_all()

    # --- verbs ------------------------------------------------------------------------------------

    def answer(self, request: Request) -> Any:
        """What a request is answered: JSON, text, or an iterator of lines."""
        for meant, error in self.faults:
            if meant(request):
                raise error
        if request.path in self.texts:
            return self.texts[request.path]
        if found := re.fullmatch(r"/apis/([^/]+)(?:/([^/]+))?|/api/(v1)", request.path):
            return self._discovery(found[1] or "", found[2] or found[3])
        at = PATH.fullmatch(request.path)
        if at is None or (at["group"] or "", at["plural"]) not in KINDS:
            raise PlainRefusal("404 page not found\n")
        _name, kind = KINDS[at["group"] or "", at["plural"]]
        if kind.group in self.missing or at["version"] not in kind.versions:
            raise PlainRefusal("404 page not found\n")
        key = (kind.group, kind.plural, at["namespace"] or "", at["name"] or "")
        with self.lock:
            if request.method == "GET":
                return self._get(key) if key[3] else self._list(key, request)
            return getattr(self, f"_{request.method.lower()}")(key, request)

    def _discovery(self, group: str, version: str | None) -> Object:
        of_group = [found for (name, _), found in KINDS.items() if name == group]
        if not of_group or group in self.missing:
            raise PlainRefusal("404 page not found\n")
        if version is None:
            versions = dict.fromkeys(v for _, kind in of_group for v in kind.versions)
            named = [{"groupVersion": f"{group}/{v}", "version": v} for v in versions]
            return {"kind": "APIGroup", "name": group, "versions": named,
                    "preferredVersion": named[0]}  # fmt: skip
        return {
            "kind": "APIResourceList",
            "resources": [
                {"name": kind.plural, "kind": name, "namespaced": kind.namespaced}
                for name, kind in of_group
                if version in kind.versions
            ],
        }

    def _get(self, key: Key) -> Object:
        if key not in self.objects:
            raise not_found(key)
        return self.objects[key]

    def _list(self, key: Key, request: Request) -> Any:
        name, kind = KINDS[key[:2]]
        if request.query.get("watch"):
            return self._watch(key, request.query)
        api = f"{kind.group}/{kind.versions[0]}" if kind.group else kind.versions[0]
        found = [o for at, o in sorted(self.objects.items()) if _within(at, key)]
        found = [o for o in found if _selected(o, request.query)]
        start, most = int(request.query.get("continue") or 0), int(request.query.get("limit", 500))
        meta: Object = {"resourceVersion": str(self.version)}
        if start + most < len(found):
            meta["continue"] = str(start + most)
        items = [
            {k: v for k, v in o.items() if k not in ("kind", "apiVersion")}
            for o in found[start : start + most]
        ]
        return {"kind": f"{name}List", "apiVersion": api, "metadata": meta, "items": items}

    def _watch(self, key: Key, query: dict[str, str]) -> Iterator[str]:
        since, drops = int(query["resourceVersion"]), self.drops
        ends = datetime.now(UTC).timestamp() + float(query["timeoutSeconds"])
        if since < self.oldest:
            gone = Refusal(410, "Expired", f"too old resource version: {since} ({self.oldest})")
            return iter([json.dumps({"type": "ERROR", "object": gone.body}) + "\n"])

        def changes() -> Iterator[str]:
            last = since
            while True:
                with self.lock:
                    new = [change for change in self.history if change[0] > last]
                    left = ends - datetime.now(UTC).timestamp()
                    if not new and self.drops == drops and left > 0:
                        self.lock.wait(left)
                        continue
                if not new and self.drops != drops:
                    raise ConnectionAbortedError  # in the middle of an answer
                if not new and left <= 0:
                    return
                for version, how, at, obj in new:
                    last = version
                    if _within(at, key) and _selected(obj, query):
                        yield json.dumps({"type": how, "object": obj}) + "\n"

        return changes()

    def _patch(self, key: Key, request: Request) -> Object:
        body, before = request.content, self.objects.get(key)
        if "apply-patch" not in request.headers["content-type"]:
            if before is None:
                raise not_found(key)
            return self._store(key, _merged(before, body, nulls=True), "fedctl", body)
        owners = self.owners.get(key, {})
        foreign = [
            path
            for path, value in _leaves(body)
            if owners.get(path, "fedctl") != "fedctl" and _at(before or {}, path) != value
        ]
        if foreign and not request.query.get("force"):
            fields = "".join(f"\n- .{path}" for path in foreign)
            who = owners[foreign[0]]
            raise Refusal(
                409, "Conflict",
                f'Apply failed with {len(foreign)} conflicts: conflicts with "{who}":{fields}',
            )  # fmt: skip
        after = _merged(before or {}, body)
        if request.dry:
            return after
        return self._store(key, after, "fedctl", body)

    def _post(self, key: Key, request: Request) -> Object:
        body = request.content
        key = (*key[:3], body["metadata"]["name"])
        if key in self.objects:
            what = f'{key[1]} "{key[3]}" already exists'
            raise Refusal(409, "AlreadyExists", what, {"name": key[3], "kind": key[1]})
        return body if request.dry else self._store(key, body, "fedctl", body)

    def _delete(self, key: Key, request: Request) -> Object:
        obj = self._get(key)
        wanted = (request.content.get("preconditions") or {}).get("uid", obj["metadata"]["uid"])
        if wanted != obj["metadata"]["uid"]:
            raise Refusal(409, "Conflict", "Precondition failed: UID in precondition")
        if self.on_delete:
            obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            threading.Thread(target=self.on_delete, args=[obj]).start()
        else:
            self._gone(key)
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}


def not_found(key: Key) -> Refusal:
    group, plural, _, name = key
    what = f"{plural}.{group}" if group else plural
    details = {"name": name, "kind": plural}
    return Refusal(404, "NotFound", f'{what} "{name}" not found', details)


def _within(at: Key, key: Key) -> bool:
    return at[:2] == key[:2] and key[2] in ("", at[2])


def _selected(obj: Object, query: Mapping[str, str]) -> bool:
    labels = obj["metadata"].get("labels") or {}
    wanted = dict(pair.split("=", 1) for pair in query.get("labelSelector", "").split(",") if pair)
    fields = [pair.split("=", 1) for pair in query.get("fieldSelector", "").split(",") if pair]
    return wanted.items() <= labels.items() and all(
        (_at(obj, path.rstrip("!")) == value) != path.endswith("!") for path, value in fields
    )


def _merged(base: Any, over: Any, nulls: bool = False) -> Any:
    if not isinstance(base, dict) or not isinstance(over, dict):
        return copy.deepcopy(over)
    result = copy.deepcopy(base)
    for key, value in over.items():
        if nulls and value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value, nulls)
    return result


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, tree


def _at(tree: Any, path: str) -> Any:
    leaves = dict(_leaves(tree))
    return leaves.get(path)


def _bare(obj: Object) -> Object:
    meta = {
        k: v for k, v in obj["metadata"].items() if k not in ("resourceVersion", "managedFields")
    }
    return obj | {"metadata": meta}


def _handler(server: ApiServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # head and body in one packet: TCP waits 40 ms between two

        def serve(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("content-length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(length).decode()
            query = dict(parse_qsl(parts.query))
            request = Request(self.command, parts.path, query, headers, body)
            server.requests.append(request)
            try:
                found = server.answer(request)
            except Refusal as error:
                return self.reply(error.code, json.dumps(error.body))
            except PlainRefusal as error:
                return self.reply(404, str(error))
            if isinstance(found, dict):
                warned = server.warnings.get(found.get("kind", "")) if body else None
                return self.reply(200, json.dumps(found), warned)
            if isinstance(found, str):
                return self.reply(200, found)
            return self.stream(found)

        def reply(self, status: int, text: str, warned: str | None = None) -> None:
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            if warned:
                escaped = warned.replace("\\", "\\\\").replace('"', '\\"')
                self.send_header("Warning", f'299 - "{escaped}"')
            self.end_headers()
            self.wfile.write(data)

        def stream(self, lines: Iterator[str]) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                for line in lines:
                    data = line.encode()
                    self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                    self.wfile.flush()
                self.wfile.write(b"0\r\n\r\n")
            except OSError:  # dropped, or the client has had enough
                self.close_connection = True

        do_GET = do_POST = do_PATCH = do_DELETE = serve

        def log_message(self, *words: Any) -> None:
            """Tests print nothing."""

    return Handler


Server = TypeVar("Server", bound=ApiServer)


def serving(folder: Path) -> AbstractContextManager[tuple[ApiServer, Path]]:
    """A server, and a kubeconfig whose context `test` is at its namespace `lab`."""
    return serving_with(_handler, ApiServer(), folder)


@contextmanager
def serving_with(
    handler: Callable[[Server], type[BaseHTTPRequestHandler]], server: Server, folder: Path
) -> Iterator[tuple[Server, Path]]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler(server))
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.005})
    thread.start()
    path = folder / "kubeconfig"
    path.write_text(kubeconfig(f"http://127.0.0.1:{http.server_port}"))
    try:
        yield server, path
    finally:
        server.drop()
        http.shutdown()
        thread.join()
        http.server_close()


def kubeconfig(url: str, **user: Any) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": user or {"token": "secret"}}],
            "contexts": [
                {"name": "test", "context": {"cluster": "c", "user": "u", "namespace": "lab"}},
                {"name": "bare", "context": {"cluster": "c", "user": "u"}},
            ],
        }
    )
