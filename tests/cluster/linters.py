"""Owns what the charts are held against that others wrote: kube-score, Prometheus Operator's kinds.

From the Go modules tools/lint and tools/monitoring, into .tools/lint, once per change of them.
"""

import fcntl
import json
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.stack import parts
from tests.cluster.stack.processes import Failed

FOLDER = parts.ROOT / ".tools" / "lint"
OPERATOR = "github.com/prometheus-operator/prometheus-operator"
DEFINITION = "example/prometheus-operator-crd/monitoring.coreos.com_{}s.yaml"
KINDS = ("PodMonitor", "PrometheusRule")
OPTIONAL = (  # checks that are off unless asked for
    "container-memory-requests-equal-limits",
    "container-ports-check",
    "container-seccomp-profile",
)
PASSED = 10  # the grade

Object = dict[str, Any]


def ensure() -> None:
    """Build what is not there, or not of these modules; raise `Failed` where that can't be."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    stamp, wanted = FOLDER / "built", parts.digest(__file__, ["lint", "monitoring"])
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == wanted:
            return
        if shutil.which("go") is None:
            raise Failed("the linters are Go modules, and go (1.26 or newer) is not installed")
        lint, monitoring = parts.TOOLS / "lint", parts.TOOLS / "monitoring"
        parts.go(lint, "install", "-trimpath", "-ldflags", "-s -w", "tool", programs=FOLDER)
        parts.go(monitoring, "mod", "download", OPERATOR)
        origin = parts.go(monitoring, "list", "-m", "-f", "{{.Dir}}", OPERATOR).strip()
        for kind in KINDS:
            path = Path(origin, DEFINITION.format(kind.lower()))
            shutil.copyfile(path, FOLDER / f"{kind}.yaml")
        stamp.write_text(wanted)


def found_by_kube_score(objects: Iterable[Object]) -> Iterator[tuple[str, str]]:
    """What kube-score objects to in these objects: its check's name, and its sentence."""
    ensure()
    words = [word for check in OPTIONAL for word in ("--enable-optional-test", check)]
    done = subprocess.run(
        [FOLDER / "kube-score", "score", "--output-format=json", "--kubernetes-version=v1.31",
         *words, "-"],
        input=yaml.safe_dump_all(objects),
        capture_output=True,
        text=True,
    )  # fmt: skip
    for scored in json.loads(done.stdout):
        for check in scored["checks"]:
            if check["skipped"] or check["grade"] == PASSED:
                continue
            for comment in check["comments"]:
                text = f"{scored['type_meta']['kind']}: {comment['path']} {comment['summary']}"
                yield check["check"]["id"], text


def schema(kind: str) -> Object:
    """One of Prometheus Operator's kinds as JSON Schema; fields that it does not name are wrong."""
    ensure()
    definition = yaml.load((FOLDER / f"{kind}.yaml").read_text("utf-8"), yaml.CSafeLoader)
    (version,) = (v for v in definition["spec"]["versions"] if v["name"] == "v1")
    made = _strict(version["schema"]["openAPIV3Schema"])
    made["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own
    return made


def _strict(part: Any) -> Any:
    """Kubernetes' dialect in JSON Schema's words; unknown fields are an error, not dropped."""
    if isinstance(part, list):
        return [_strict(item) for item in part]
    if not isinstance(part, dict):
        return part
    made = {key: _strict(value) for key, value in part.items()}
    if part.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    open_to_all = part.get("x-kubernetes-preserve-unknown-fields")
    if part.get("type") == "object" and "properties" in part and not open_to_all:
        made.setdefault("additionalProperties", False)
    return made
