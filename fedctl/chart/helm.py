"""Helm: its path, its calls, and its errors in one line. The only module that starts it.

`helm template` and `helm lint` contact no cluster, so the result depends only on the chart, the
release and the kinds that the caller says the cluster has.
"""

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Sequence

from fedctl.chart import schema
from fedctl.chart.values import Release
from fedctl.errors import RunError, UserError

OLDEST = (3, 14)  # the first that can check the schema in files.py
HOW = (
    "install Helm 3.14 or newer, or 4 (helm.sh/docs/intro/install), or name it in FEDCTL_HELM: "
    "in a checkout, `export FEDCTL_HELM=$(scripts/tools helm)` fetches one"
)


def template(release: Release, api_versions: Sequence[str] = ()) -> str:
    """Return the objects of a run as YAML, byte for byte what `helm template` prints.

    `api_versions`: kinds that the cluster has besides Kubernetes' own, as group/version/Kind.
    """
    words = ["template", release.name, str(schema.folder()), "--namespace", release.namespace]
    words += [word for api in api_versions for word in ("--api-versions", api)]
    done = _run([*words, "--values", "-"], release.text())
    if done.returncode:
        raise UserError(one_line(done.stderr))
    return done.stdout


def lint(release: Release) -> str | None:
    """Return the objections of `helm lint --strict`; None if there are none."""
    words = ["lint", "--strict", str(schema.folder()), "--namespace", release.namespace]
    done = _run([*words, "--values", "-"], release.text())
    found = re.findall(r"^\[(?:ERROR|WARNING)\] (.*(?:\n(?!\[|\n).*)*)", done.stdout, re.M)
    if done.returncode and not found:
        raise RunError(f"helm lint failed: {one_line(done.stderr)}")
    return "; ".join(" ".join(text.split()) for text in found) or None


def one_line(stderr: str) -> str:
    """Return Helm's error; if it comes from a rule of ours, without the place in the template."""
    text = " ".join(stderr.split()).removesuffix("Use --debug flag to render out invalid YAML")
    ours = re.search(r"execution error at \([^)]*\): (.*)$", text)
    return (ours[1] if ours else text.rpartition("Error: ")[2]).strip()


@functools.cache
def program() -> str:
    """Return Helm's path; raise if none is installed that is new enough."""
    wanted = os.environ.get("FEDCTL_HELM")
    path = shutil.which(wanted or "helm")
    if path is None:
        where = f"FEDCTL_HELM={wanted} is not a program" if wanted else "helm is not installed"
        raise RunError(f"{where}; {HOW}")
    try:
        printed = subprocess.run(
            [path, "version", "--short"], capture_output=True, text=True, check=False
        ).stdout
    except OSError as error:
        raise RunError(f"{path} does not start ({error.strerror}); {HOW}") from None
    version = re.search(r"v(\d+)\.(\d+)\.(\d+)", printed)
    if version is None:
        raise RunError(f"{path} does not print a version of Helm; {HOW}")
    if (int(version[1]), int(version[2])) < OLDEST:
        raise RunError(f"{path} is Helm {version[0]}, which is too old; {HOW}")
    return path


def _run(words: Sequence[str], values: str) -> "subprocess.CompletedProcess[str]":
    # Helm's own variables are about clusters and plugins, which are not used here.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HELM_")}
    return subprocess.run(
        [program(), *words],
        input=values,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        encoding="utf-8",
    )
