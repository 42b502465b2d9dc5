"""The cluster and user to connect as: the kubeconfig's context, or a pod's service account.

The official client reads the file, and supports every login method that it knows.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedctl.cluster.api import proxy
from fedctl.errors import RunError
from trainer.files import not_regular

HOW = "set KUBECONFIG or name one with --context; `kubectl config get-contexts` lists them"
IN_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True)
class Access:
    """A cluster and the credentials for it; `configuration` is the official client's."""

    context: str
    namespace: str
    configuration: Any


def read(context: str | None, namespace: str | None) -> Access:
    """Return the access of a context; by default the current one, or the surrounding pod's."""
    from kubernetes.client import Configuration

    configuration = Configuration()
    files = _files()
    if not files and context is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
        return _of_the_pod(namespace, configuration)
    if not files:
        asked = os.environ.get("KUBECONFIG")
        where = f"KUBECONFIG={asked}: no such file" if asked else "~/.kube/config does not exist"
        raise RunError(f"no cluster: {where}; set KUBECONFIG to a file that names one")
    return _of_the_file(files, context, namespace, configuration)


def _files() -> str:
    """Return the kubeconfig's files that exist, joined as in KUBECONFIG."""
    asked = os.environ.get("KUBECONFIG") or "~/.kube/config"
    paths = [os.path.expanduser(path) for path in asked.split(os.pathsep) if path]
    return os.pathsep.join(path for path in paths if os.path.exists(path))


def _of_the_pod(namespace: str | None, configuration: Any) -> Access:
    from kubernetes import config

    try:
        config.load_incluster_config(client_configuration=configuration)
        own = (IN_POD / "namespace").read_text("utf-8").strip()
    except (config.ConfigException, OSError) as error:
        raise RunError(
            f"no cluster: this pod has no service account ({_line(error)}); {HOW}"
        ) from None
    proxy.configure(configuration, None)
    return Access("in-cluster", namespace or own, configuration)


def _of_the_file(
    files: str, context: str | None, namespace: str | None, configuration: Any
) -> Access:
    from kubernetes import config
    from kubernetes.config.kube_config import KubeConfigMerger

    for path in files.split(os.pathsep):
        if problem := not_regular(path):  # a pipe may have nobody who writes to it
            raise RunError(f"{path} {problem}; {HOW}")
    with _one_line_errors(files) as complaints:
        tree = KubeConfigMerger(files).config.value
        names = [entry["name"] for entry in tree.get("contexts") or []]
        chosen = context or tree.get("current-context")
    if not chosen:
        raise RunError(f"{files} has no current context; {HOW}")
    if chosen not in names:
        there = ", ".join(sorted(names)) or "none"
        asked = f"--context {chosen}" if context else f"current-context {chosen}"
        raise RunError(f"{asked}: {files} has no such context; it has: {there}")
    with _one_line_errors(files) as complaints:
        config.load_kube_config(
            config_file=files, context=chosen, client_configuration=configuration
        )
    if (
        complaints
    ):  # a login plugin failed; the client only logs that, and continues without a login
        raise RunError(f"context {chosen}: logging in failed: {complaints[0]}; log in again")
    with _one_line_errors(files):
        entry = next(entry for entry in tree["contexts"] if entry["name"] == chosen)
        own = _value(entry).get("context", {}).get("namespace")
        url = _proxy_url(tree, entry)
    proxy.configure(configuration, url)
    return Access(chosen, namespace or own or "default", configuration)


def _proxy_url(tree: Any, entry: Any) -> str | None:
    """Return the proxy that the context's cluster names, which counts before the environment's."""
    name = _value(entry).get("context", {}).get("cluster")
    clusters = [_value(c) for c in tree.get("clusters") or []]
    found = next((c.get("cluster") or {} for c in clusters if c.get("name") == name), {})
    return found.get("proxy-url") or None


def _value(node: Any) -> Any:
    """Return the plain tree behind the client's own type of node."""
    return getattr(node, "value", node)


@contextmanager
def _one_line_errors(files: str) -> Iterator[list[str]]:
    """Collect what the official client logs, and turn what it raises into one line."""
    from yaml import YAMLError

    complaints: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            complaints.append(" ".join(record.getMessage().split()))

    # It logs to the root logger, which would print.
    root, handler = logging.getLogger(), Collect(logging.ERROR)
    root.addHandler(handler)
    try:
        yield complaints
    except YAMLError as error:
        problem = getattr(error, "problem", None) or error
        raise RunError(f"{files} is not a kubeconfig: not YAML: {problem}") from None
    # The client does not check the file's structure, so a wrong one can raise anything.
    except Exception as error:
        raise RunError(f"{files} is not a valid kubeconfig: {_line(error)}; {HOW}") from None
    finally:
        root.removeHandler(handler)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
