"""Problems of a run that can be found before it is sent: errors, and warnings with their remedy.

They come from the chart's own rules, from Helm's lint, and from combinations of experiment and
values that no schema covers. Contacts no cluster.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from fedctl.chart import helm
from fedctl.chart.values import Release
from fedctl.errors import UserError
from trainer.config.fit import ineffective

DOWNLOADED = ("mnist", "emnist", "emnist-digits", "cifar10", "cifar100")


@dataclass(frozen=True)
class Problem:
    """One line about one key. An error would fail on the cluster; a warning may be intended."""

    level: Literal["error", "warning"]
    key: str
    text: str

    def line(self) -> str:
        return f"{self.level}: {self.key}: {self.text}"


def problems(release: Release) -> list[Problem]:
    """Return all problems, errors first."""
    found = [*_of_helm(release), *_of_the_run(release), *_of_storage(release)]
    found += _of_the_network(release)
    return sorted(found, key=lambda problem: problem.level)


def _of_helm(release: Release) -> Iterator[Problem]:
    if text := helm.lint(release):
        yield Problem("error", "chart", text)
    try:
        rendered = helm.template(release)
    except UserError as error:
        key, _, text = str(error).partition(": ")
        yield Problem("error", key, text) if text else Problem("error", "chart", key)
        return
    for item in yaml.safe_load_all(rendered):
        for path, policy in _restart_policies(item):
            if policy not in ("OnFailure", "Never"):
                yield Problem(
                    "error",
                    "podOverlay",
                    f"{item['kind']} {path} is {policy}; under ExitCode and Always pods restart "
                    "forever, so use restart.policy",
                )


def _restart_policies(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield every restartPolicy of a job or of its pods, with the path to it."""
    if isinstance(node, dict):
        for key, value in node.items():
            below = f"{path}.{key}".removeprefix(".")
            if key == "restartPolicy":
                yield below, str(value)
            else:
                yield from _restart_policies(value, below)


def _of_the_run(release: Release) -> Iterator[Problem]:
    values, experiment = release.values, release.experiment
    if experiment.cluster.backend == "nccl" and not values.resources.gpus:
        yield Problem("error", "resources.gpus", "is 0, but cluster.backend is nccl; set it to 1")
    image = values.image.reference
    if "@" not in image and image.rpartition(":")[2] in ("latest", image):
        yield Problem(
            "warning",
            "image.reference",
            f"{image} may be another image at the next restart; name a tag or a digest",
        )
    for key, text in ineffective(experiment):  # of a preset; what the user gives is refused
        yield Problem("warning", key, text)
    if not experiment.checkpoint.every and values.restart.limit:
        yield Problem(
            "warning",
            "checkpoint.every",
            "is 0: before the end of a phase a checkpoint is saved only when a pod is stopped, so "
            "a lost pod costs all rounds of the phase; set it to a number of rounds",
        )


def _of_storage(release: Release) -> Iterator[Problem]:
    runs, data = release.values.storage.runs, release.experiment.data
    shared = runs.kind == "claim" or (runs.kind == "new" and runs.access_mode == "ReadWriteMany")
    if release.experiment.ranks > 1 and not shared:
        what = "ephemeral" if runs.kind == "ephemeral" else runs.access_mode
        yield Problem(
            "warning",
            "storage.runs",
            f"is {what}, but {release.experiment.ranks} ranks share a checkpoint's folder: saving "
            "one fails; use accessMode ReadWriteMany, or a claim that has it",
        )
    model = getattr(data.tokenizer, "model", None)
    for key, path in (("data.path", data.path), ("data.tokenizer.model", model)):
        if path is not None and not path.startswith("/data/") and path != "/data":
            yield Problem(
                "warning",
                key,
                f"{path} is not under /data, where the pod has its data; put it on the claim that "
                "storage.data names",
            )


def _of_the_network(release: Release) -> Iterator[Problem]:
    policy, experiment = release.values.network_policy, release.experiment
    if not (policy.enabled and policy.restrict_egress) or policy.egress_to:
        return
    remedy = "allow it in networkPolicy.egressTo"
    data = experiment.data
    if data.name in DOWNLOADED and release.values.storage.data.kind != "claim":
        yield Problem(
            "warning",
            "data.name",
            f"{data.name} is downloaded, which the network policy forbids; {remedy}, or put the "
            "files on a claim that storage.data names",
        )
    metrics = experiment.metrics
    if metrics.wandb.mode == "online" or (metrics.mlflow.enabled and metrics.mlflow.uri):
        yield Problem(
            "warning",
            "metrics",
            f"a tracker is outside the cluster, which the network policy forbids; {remedy}",
        )
