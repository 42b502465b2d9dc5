"""Errors of an API server, each as one line with its remedy. Sends no request."""

import json
import re
from collections.abc import Mapping
from typing import Any

from fedctl.cluster.api import kinds
from fedctl.errors import FedctlError, RunError

ROLE = "ask for the role of charts/fedtrain-platform"


class ApiError(FedctlError):
    """An error answer; `status` is HTTP's, `reason` Kubernetes', `message` its own text."""

    def __init__(self, line: str, status: int = 0, reason: str = "", message: str = "") -> None:
        super().__init__(line)
        self.status, self.reason, self.message = status, reason, message


class Forbidden(ApiError):
    """A permission is missing."""


class NotFound(ApiError):
    """The object or the namespace does not exist."""


class KindMissing(ApiError):
    """The kind is not installed in the cluster."""


class AlreadyExists(ApiError):
    """The name is taken."""


class Conflict(ApiError):
    """Another manager owns a field, or the object has changed in the meantime."""


class Gone(ApiError):
    """The version to resume a watch from is too old."""


class Refused(ApiError):
    """The object itself is wrong, so sending it again does not help."""

    exit_code = 2


class Unreachable(RunError):
    """No answer, or one that was cut off; a later request may succeed."""


TIMEOUT_SECONDS = 60.0  # how long a wait for a run continues while the server does not answer


def passing(error: FedctlError) -> bool:
    """Return whether the same request may succeed in a moment."""
    if isinstance(error, ApiError):
        return error.status in (429, 500, 502, 503, 504)
    return isinstance(error, Unreachable)


def of(
    status: int, body: bytes, *, method: str, path: str, server: str = "the cluster"
) -> ApiError:
    """Return the error of an answer with an HTTP status of 400 or more."""
    answer = _status(body)
    return of_status({"code": status, **answer}, method=method, path=path, server=server)


def of_status(
    answer: Mapping[str, Any], *, method: str = "", path: str = "", server: str = "the cluster"
) -> ApiError:
    """Return the error that a Kubernetes Status object describes."""
    status, reason = int(answer.get("code") or 0), str(answer.get("reason") or "")
    message = " ".join(str(answer.get("message") or "").split())
    kind: type[ApiError]
    for pattern, kind, write in _BY_MESSAGE:
        if found := re.search(pattern, message):
            return kind(write(found), status, reason, message)
    kind, line = _by_status(status, reason, message, answer, method, path, server)
    return kind(line, status, reason, message)


def _status(body: bytes) -> dict[str, Any]:
    try:
        tree = json.loads(body)
    except ValueError:
        return {"message": body[:300].decode("utf-8", "replace")}
    return tree if isinstance(tree, dict) else {}


def _forbidden(found: "re.Match[str]") -> str:
    who, verb, resource = found["user"], found["verb"], found["resource"]
    group = f".{found['group']}" if found["group"] else ""
    namespace = found["namespace"]
    where = f"in namespace {namespace}" if namespace else "in the whole cluster"
    remedy = f"{ROLE} in {namespace}" if namespace else "ask the cluster's administrator"
    return f"{who} has no permission to {verb} {resource}{group} {where}; {remedy}"


def _quota(found: "re.Match[str]") -> str:
    def amounts(text: str) -> dict[str, str]:
        return dict(pair.split("=", 1) for pair in text.split(",") if "=" in pair)

    asked, used, limit = (amounts(found[name]) for name in ("requested", "used", "limited"))
    over = "; ".join(
        f"{name}: {used.get(name, '?')} of {limit.get(name, '?')} used, {amount} more requested"
        for name, amount in asked.items()
    )
    return (
        f"quota {found['quota']} is exceeded: {over}; request less, or wait for other runs to end"
    )


def _security(found: "re.Match[str]") -> str:
    return (
        f"the namespace's Pod Security level {found['level']} forbids the pods: {found['why']}; "
        "use a namespace that allows it, or --pod-security with the namespace's level"
    )


def _webhook_down(found: "re.Match[str]") -> str:
    why = found["why"].rpartition(": ")[2]
    return (
        f"the admission webhook {found['name']} does not answer ({why}); its "
        "operator does not seem to be running: check with `kubectl get pods -A` and `fedctl doctor`"
    )


def _undeclared(found: "re.Match[str]") -> str:
    field = found["field"].lstrip(".")
    hint = ""
    if "schedulingGroup" in field or "workloadRef" in field:
        hint = "; gangs need Kubernetes 1.36, and for a PyTorchJob the training operator 1.9.4"
    return (
        f"{field}: this cluster's version of the kind has no such field, and would drop it{hint}; "
        "upgrade the operator that defines the kind, or remove the field"
    )


def _conflict(found: "re.Match[str]") -> str:
    fields = re.findall(r"(?:^|\s)\.(\S+)", found["fields"])
    return (
        f"{', '.join(fields) or 'it'} was changed by {found['who']}, and a submit would undo that; "
        "`fedctl diff` shows the changes, `fedctl cancel` removes the run"
    )


# Messages that say more than the status; the first match counts.
_BY_MESSAGE: tuple[tuple[str, type[ApiError], Any], ...] = (
    (
        r"exceeded quota: (?P<quota>\S+), requested: (?P<requested>\S+), used: (?P<used>\S+), "
        r"limited: (?P<limited>\S+)",
        ApiError,
        _quota,
    ),
    (r"violates PodSecurity \"(?P<level>\w+)[^\"]*\": (?P<why>.*)", Refused, _security),
    (
        r"User \"(?P<user>[^\"]*)\" cannot (?P<verb>\w+) resource \"(?P<resource>[^\"]+)\" in API "
        r"group \"(?P<group>[^\"]*)\"(?: in the namespace \"(?P<namespace>[^\"]+)\")?",
        Forbidden,
        _forbidden,
    ),
    (
        r"(?:namespaces \"|namespace )(?P<name>[a-z0-9-]+)\"? not found",
        NotFound,
        lambda found: (
            f"namespace {found['name']} does not exist; name another with -n, or have it created"
        ),
    ),
    (
        r"unable to create new content in namespace (?P<name>\S+)",
        ApiError,
        lambda found: f"namespace {found['name']} is being deleted; name another with -n",
    ),
    (
        r"failed calling webhook \"(?P<name>[^\"]+)\": (?P<why>.*)",
        ApiError,
        _webhook_down,
    ),
    (
        r"admission webhook \"(?P<name>[^\"]+)\" denied the request: (?P<why>.*)",
        Refused,
        lambda found: f"refused by {found['name']}: {found['why']}",
    ),
    (
        r"(?P<name>ValidatingAdmissionPolicy '[^']+').* denied request: (?P<why>.*)",
        Refused,
        lambda found: f"refused by {found['name']}: {found['why']}",
    ),
    (r"(?P<field>\.[\w.\[\]\"=,{}:-]+): field not declared in schema", Refused, _undeclared),
    (r"unknown field \"(?P<field>[^\"]+)\"", Refused, _undeclared),
    (
        r"Apply failed with .*?conflicts? with \"(?P<who>[^\"]+)\"[^:]*:(?P<fields>.*)",
        Conflict,
        _conflict,
    ),
)


def _by_status(
    status: int,
    reason: str,
    message: str,
    answer: Mapping[str, Any],
    method: str,
    path: str,
    server: str,
) -> tuple[type[ApiError], str]:
    what = named(path)
    if status == 401:
        line = f"{server} rejects the context's credentials: they are wrong or have expired"
        return ApiError, f"{line}; log in again, or name another --context"
    if status == 403:
        return Forbidden, f"{what}: forbidden: {message}; {ROLE}"
    if status == 404:
        details = answer.get("details") or {}
        if details.get("name") and details.get("kind"):
            return NotFound, f"{what}: not found"
        return KindMissing, without(path)
    if status == 409 and reason == "AlreadyExists":
        return AlreadyExists, f"{what}: already exists"
    if status == 409:
        return Conflict, f"{what}: was changed in the meantime; try again ({message})"
    if status == 410:
        return Gone, f"{what}: {message}"
    if status in (400, 422):
        return Refused, f"{what}: not valid: {_causes(answer) or message}"
    if status == 413:
        return Refused, f"{what}: too large for the API server; an experiment's limit is 1 MiB"
    if status == 429:
        return ApiError, f"{server} is overloaded; try again later"
    if status in (503, 504):
        return ApiError, f"{server} did not answer in time ({message or status}); try again"
    return ApiError, f"{what}: {server} failed: {message or f'HTTP {status}'}; try again"


def _causes(answer: Mapping[str, Any]) -> str:
    """Return the invalid fields and what is wrong with each."""
    causes = (answer.get("details") or {}).get("causes") or []
    lines = []
    for cause in causes[:3]:
        text = " ".join(str(cause.get("message", "")).split())
        field = cause.get("field")
        lines.append(f"{field}: {text}" if field and field != "<nil>" else text)
    return "; ".join(dict.fromkeys(lines))


def without(path: str) -> str:
    """Return the sentence that a kind is not served, and how to install it."""
    found = re.match(r"/apis/([^/]+)/([^/]+)", path)
    if not found:
        return f"{path}: the cluster does not serve this path"
    remedy = kinds.BROUGHT_BY.get(found[1], "install the operator that defines it")
    return f"the cluster has no {named(path).split(' ')[0]} ({found[1]}/{found[2]}); {remedy}"


def named(path: str) -> str:
    """Return what a path refers to, for people: `pytorchjobs.kubeflow.org digits`."""
    found = re.match(
        r"/(?:api|apis/(?P<group>[^/]+))/[^/]+(?:/namespaces/[^/]+(?=/))?/(?P<plural>[^/?]+)"
        r"(?:/(?P<name>[^/?]+))?",
        path,
    )
    if not found:
        return path
    group = f".{found['group']}" if found["group"] else ""
    return f"{found['plural']}{group}" + (f" {found['name']}" if found["name"] else "")
