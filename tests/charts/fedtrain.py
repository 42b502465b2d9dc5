"""charts/fedtrain as fedctl renders it, for tests: objects, jobs and pods by value."""

import copy
import functools
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from fedctl.chart import helm, values
from fedctl.errors import UserError
from tests.tools import program

ROOT = Path(__file__).parent.parent.parent
CHART = ROOT / "charts" / "fedtrain"
EXAMPLES = ROOT / "manifests" / "examples"
JOBS = {"pytorchjob": "PyTorchJob", "trainjob": "TrainJob", "job": "Job"}
BACKENDS = tuple(JOBS)
MONITORED = ("monitoring.coreos.com/v1/PodMonitor",)

Objects = dict[str, dict[str, Any]]


def release(options: Mapping[str, Any] | None = None, ranks: int = 4, **more: Any):
    """The digits on `ranks` pods, with these values by dotted key."""
    os.environ.setdefault("FEDCTL_HELM", program("helm"))
    more["files"] = [Path(file) for file in more.get("files", ())]
    sets = [f"ranks={ranks}", f"clients={max(ranks, 10)}", *more.pop("sets", ())]
    return values.release("gwpf-digits", sets, namespace="team-a", options=options, **more)


def render(options: Mapping[str, Any] | None = None, *apis: str, **more: Any) -> Objects:
    """Its objects by `Kind/name`. A key's `None` is a null, not a default."""
    made = _render(json.dumps(dict(options or {})), apis, json.dumps(more, sort_keys=True))
    return copy.deepcopy(made)


@functools.cache
def _render(options: str, apis: tuple[str, ...], more: str) -> Objects:
    return objects(helm.template(release(json.loads(options), **json.loads(more)), apis))


def refusal(options: Mapping[str, Any] | None = None, **more: Any) -> str:
    """The one line in which the chart refuses."""
    try:
        helm.template(release(options, **more))
    except UserError as error:
        return str(error)
    raise AssertionError(f"rendered: {options}")


def objects(text: str) -> Objects:
    items = [item for item in yaml.load_all(text, yaml.CSafeLoader) if item]
    named = {f"{item['kind']}/{item['metadata']['name']}": item for item in items}
    assert len(named) == len(items)
    return named


def job(rendered: Objects) -> dict[str, Any]:
    return next(item for item in rendered.values() if item["kind"] in JOBS.values())


def pod(rendered: Objects) -> dict[str, Any]:
    """The pod template, wherever the backend has it."""
    (template,) = pods(rendered)
    return template


def pods(rendered: Objects) -> Iterator[dict[str, Any]]:
    for item in rendered.values():
        if item["kind"] == "PyTorchJob":
            for replica in item["spec"]["pytorchReplicaSpecs"].values():
                yield replica["template"]
        elif item["kind"] == "TrainingRuntime":
            for replicated in item["spec"]["template"]["spec"]["replicatedJobs"]:
                yield replicated["template"]["spec"]["template"]
        elif item["kind"] == "Job":
            yield item["spec"]["template"]


def container(rendered: Objects) -> dict[str, Any]:
    (found,) = pod(rendered)["spec"]["containers"]
    return found


def env(rendered: Objects) -> dict[str, Any]:
    found = {item["name"]: item for item in container(rendered)["env"]}
    assert len(found) == len(container(rendered)["env"])
    return {name: item.get("value", item.get("valueFrom")) for name, item in found.items()}


def run(binary: str, *words: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program(binary), *map(str, words)],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
