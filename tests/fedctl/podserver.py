"""The API server of apiserver.py with pods in it: their logs, ports, commands, and who may what."""

import base64
import hashlib
import json
import re
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.fedctl.apiserver import (
    PATH,
    ApiServer,
    Key,
    Object,
    PlainRefusal,
    Refusal,
    Request,
    _handler,
    not_found,
    serving_with,
)

TIMEOUT_SECONDS = 20  # of a log that is followed and never ended
VERBS = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}


@dataclass
class Log:
    """A container's log: lines with their stamps; it may still grow, and its reader be cut off."""

    lines: list[str] = field(default_factory=list)
    ended: bool = True
    cut_after: list[int] = field(default_factory=list)  # the next readers get so many lines each
    changed: threading.Condition = field(default_factory=threading.Condition)

    def say(self, *lines: str, end: bool = False) -> None:
        with self.changed:
            self.lines += lines
            self.ended = end
            self.changed.notify_all()

    def stamped(self) -> list[str]:
        return [f"2026-11-21T10:00:{i:02}.{i:09}Z {line}" for i, line in enumerate(self.lines)]

    def read(self, query: dict[str, str]) -> Iterator[str]:
        """As a kubelet answers; ConnectionError where it is cut off."""
        follow = query.get("follow") == "true"
        with self.changed:
            place = 0
            if "tailLines" in query:
                place = max(0, len(self.lines) - int(query["tailLines"]))
            if since := query.get("sinceTime"):
                place = sum(line[:19] < since[:19] for line in self.stamped())
            limit = self.cut_after.pop(0) if self.cut_after and follow else None
        first = place
        while True:
            with self.changed:
                lines = self.stamped() if query.get("timestamps") == "true" else [*self.lines]
                if place == len(lines):
                    if self.ended or not follow:
                        return
                    if not self.changed.wait(TIMEOUT_SECONDS):
                        raise AssertionError("a log was followed that nobody ends")
                    continue
            if limit is not None and place - first == limit:
                raise ConnectionError
            yield lines[place] + "\n"
            place += 1


class PodServer(ApiServer):
    """The state; what a pod says, serves and holds is the test's."""

    def __init__(self) -> None:
        super().__init__()
        self.logs: dict[str, Log] = {}  # by pod, or pod/previous
        self.pages: dict[str, str | Refusal] = {}  # what a pod's port serves
        self.folders: dict[str, Path] = {}  # a path in pods -> one here
        self.denied: set[tuple[str, str]] = set()  # verb, resource[/subresource]
        self.answers: dict[str, Any] = {}  # path -> JSON: versions and schemas
        self.on_create: Callable[[Object], None] | None = None

    def add(self, *objects: Object) -> None:
        """These come to be, or change."""
        for obj in objects:
            self.put(obj)

    def names(self, kind: str) -> list[str]:
        """Of all objects of a kind."""
        return sorted(
            obj["metadata"]["name"] for obj in self.objects.values() if obj["kind"] == kind
        )

    def answer(self, request: Request) -> Any:
        if request.path in self.answers:
            return self.answers[request.path]
        if request.path.endswith("/selfsubjectaccessreviews"):
            return self._review(request.content)
        if at := PATH.fullmatch(request.path):
            self._refuse(request, at)
            if at["sub"]:
                return self._pod(at["name"].split(":")[0], at["sub"], request)
        return super().answer(request)

    def _refuse(self, request: Request, at: "re.Match[str]") -> None:
        verb = VERBS.get(request.method) or ("get" if at["name"] else "list")
        sub = (at["sub"] or "").partition("/")[0]
        resource = f"{at['plural']}/{sub}" if sub else at["plural"]
        if (verb, resource) not in self.denied:
            return
        group = at["group"] or ""
        what = f"{at['plural']}.{group}" if group else at["plural"]
        where = (
            f' in the namespace "{at["namespace"]}"' if at["namespace"] else " at the cluster scope"
        )
        raise Refusal(
            403, "Forbidden",
            f'{what} "{at["name"] or ""}" is forbidden: User "ada" cannot {verb} resource '
            f'"{resource}" in API group "{group}"{where}',
        )  # fmt: skip

    def _review(self, body: Object) -> Object:
        asked = body["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, [asked["resource"], asked.get("subresource")]))
        return body | {"status": {"allowed": (asked["verb"], resource) not in self.denied}}

    def _post(self, key: Key, request: Request) -> Object:
        body = request.content
        meta = body["metadata"]
        meta.setdefault("name", f"{meta.get('generateName')}{len(self.requests):05}")
        request.body = json.dumps(body)
        made = super()._post(key, request)
        if self.on_create:
            self.on_create(made)
        return made

    def _pod(self, pod: str, sub: str, request: Request) -> Any:
        if self.find("Pod", pod) is None:
            raise not_found(("", "pods", "lab", pod))
        if sub.startswith("proxy"):
            page = self.pages.get(pod, "")
            if isinstance(page, Exception):
                raise page
            return page
        if sub != "log":
            raise PlainRefusal("404 page not found\n")
        previous = request.query.get("previous") == "true"
        log = self.logs.get(f"{pod}/previous" if previous else pod)
        if log is None:
            what = f'container "pytorch" in pod "{pod}" is waiting to start: ContainerCreating'
            raise Refusal(400, "BadRequest", what)
        return log.read(request.query)


def _handler_of(server: PodServer) -> type[BaseHTTPRequestHandler]:
    base = _handler(server)

    class Handler(base):  # type: ignore[misc,valid-type]
        def get(self) -> None:
            path = urlsplit(self.path)
            if not path.path.endswith("/exec"):
                try:
                    return self.serve()
                except (ConnectionError, BrokenPipeError):
                    self.close_connection = True
                    return None
            request = Request("GET", path.path, {}, {}, "")
            server.requests.append(request)
            try:
                at = PATH.fullmatch(path.path)
                assert at
                server._refuse(request, at)
            except Refusal as error:
                return self.reply(error.code, json.dumps(error.body))
            return self.execute([v for k, v in parse_qsl(path.query) if k == "command"])

        do_GET = get

        def execute(self, command: list[str]) -> None:
            """Runs it here, with folders of ours for those of a pod."""
            key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            accept = hashlib.sha1(key.encode(), usedforsecurity=False).digest()  # RFC 6455 says so
            self.send_response(101)
            for name, value in {
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Accept": base64.b64encode(accept),
                "Sec-WebSocket-Protocol": b"v5.channel.k8s.io",
            }.items():
                self.send_header(name, value if isinstance(value, str) else value.decode())
            self.end_headers()
            words = [str(server.folders.get(word, word)) for word in command]
            words = [sys.executable if word == "python" else word for word in words]
            done = subprocess.run(words, capture_output=True)
            for start in range(0, len(done.stdout), 30_000):
                self.frame(1, done.stdout[start : start + 30_000])
            self.frame(2, done.stderr)
            told: Object = {"status": "Success"}
            if done.returncode:
                cause = {"reason": "ExitCode", "message": str(done.returncode)}
                told = {"status": "Failure", "reason": "NonZeroExitCode", "message": "it failed"}
                told["details"] = {"causes": [cause]}
            self.frame(3, json.dumps(told).encode())
            self.wfile.write(b"\x88\x02\x03\xe8")
            self.close_connection = True

        def frame(self, channel: int, data: bytes) -> None:
            payload = bytes([channel]) + data
            size = len(payload)
            head = bytes([size]) if size < 126 else b"\x7e" + struct.pack(">H", size)
            self.wfile.write(b"\x82" + head + payload)

    return Handler


def serving_pods(folder: Path) -> AbstractContextManager[tuple[PodServer, Path]]:
    """A server, and a kubeconfig whose context `test` is at its namespace `lab`."""
    return serving_with(_handler_of, PodServer(), folder)
