"""The chart's values for one experiment. Computes values and never a manifest.

Precedence: the chart's defaults < what follows from the experiment < files of values < options.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from fedctl import bundled
from fedctl.chart.schema import Values
from trainer.config import documents
from trainer.config.errors import ConfigError
from trainer.config.load import flatten, get, load, put
from trainer.config.schema import NAME, Experiment
from trainer.config.secrets import is_named_like_one
from trainer.config.wording import HIDDEN, problem, shown

Tree = dict[str, Any]
Scalar = str | int | float


@dataclass(frozen=True)
class Release:
    """A run as the chart sees it: name, namespace and values; `given`: those that are not defaults.

    `namespace` is always set; otherwise Helm would take the current one of the user's kubeconfig.
    """

    name: str
    namespace: str
    experiment: Experiment
    values: Values
    given: Tree

    def text(self) -> str:
        """Return the values as YAML for Helm."""
        head = f"# helm install {self.name} charts/fedtrain --namespace {self.namespace} --values"
        # One line, however long: a folded string would be harder to compare.
        body = yaml.dump(self.given, Dumper=_Quoting, width=10**9, allow_unicode=True)
        return f"{head} THIS\n{body}"


class _Quoting(yaml.SafeDumper):
    """A YAML dumper that quotes text that Helm reads differently from PyYAML: `y`, `1e3`."""

    PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]+")
    WORDS = frozenset({"yes", "no", "on", "off", "true", "false", "null"})

    def text(self, text: str) -> yaml.ScalarNode:
        plain = self.PLAIN.fullmatch(text) and text.lower() not in self.WORDS
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else "'")


_Quoting.add_representer(str, _Quoting.text)


def release(
    source: str,
    sets: Sequence[str] = (),
    *,
    name: str | None = None,
    namespace: str = "default",
    files: Sequence[Path] = (),
    options: Mapping[str, Any] | None = None,
) -> Release:
    """Build the release of a preset or file; `options`: values by dotted key, None if not given."""
    experiment, _origins = load(source, sets=sets, presets=bundled.PRESETS)
    given = follows_from(experiment)
    for path in files:
        _lay(given, _read(path))
    for key, value in (options or {}).items():
        if value is not None:
            put(given, key, value)
    if get(given, "resources.gpus") == 0:
        _lay_below(given, on_cpus(experiment))
    if name is not None and not NAME.fullmatch(name):  # Helm's own limits too
        raise ConfigError(
            f"--name {name}",
            "use lower-case letters, digits and dashes, at most 53, none at the ends",
        )
    values = _validate(given)
    return Release(name or experiment.name, namespace, experiment, values, given)


def follows_from(experiment: Experiment) -> Tree:
    """Return the values for which the chart's defaults would be wrong for this experiment."""
    given: Tree = {"experiment": experiment.canonical()}
    cluster, data = experiment.cluster, experiment.data
    threads = cluster.threads + (data.threads or 0)
    if cluster.backend == "gloo":  # the trainer then uses no GPU
        put(given, "resources.gpus", 0)
    if cluster.threads:  # as `fedctl run` does
        put(given, "env.OMP_NUM_THREADS", str(cluster.threads))
    if threads > Values().resources.cpus:
        put(given, "resources.cpus", threads)
    if experiment.ranks == 1:  # checkpoints are not shared, and every cluster supports this
        put(given, "storage.runs.accessMode", "ReadWriteOnce")
    return given


def on_cpus(experiment: Experiment) -> Tree:
    """Return the resources of a rank without a GPU, unless the user gives others.

    The chart's defaults are a share of a GPU node; four ranks on CPUs fit on a laptop's cluster.
    """
    resources: Tree = {"memoryMiB": 4096, "sharedMemoryMiB": 512}
    if experiment.cluster.threads:
        resources["cpus"] = experiment.cluster.threads + (experiment.data.threads or 0)
    return {"resources": resources}


def _lay_below(tree: Tree, layer: Mapping[str, Any]) -> None:
    """Add those of the layer's values that the tree does not have."""
    for key, value in flatten(layer):
        if get(tree, key) is None:
            put(tree, key, value)


def _lay(tree: Tree, layer: Mapping[str, Any]) -> None:
    """Lay one file of values over another, as Helm does: maps by key, all else replaced."""
    for key, value in layer.items():
        below = tree.get(key)
        if isinstance(value, Mapping) and isinstance(below, dict):
            _lay(below, value)
        else:
            tree[key] = value


def _read(path: Path) -> Tree:
    tree = documents.read(path, f"--values {path}")
    if not isinstance(tree, dict | None):
        raise ConfigError(f"--values {path}", "values are a mapping of keys to values")
    if "experiment" in (tree or {}):
        raise ConfigError(
            f"--values {path}",
            "has an experiment of its own; remove it, and pass it as FILE instead",
        )
    return tree or {}


def _validate(given: Tree) -> Values:
    try:
        return Values.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key, value = _written(first["loc"], given)
        if first["type"] == "extra_forbidden":
            raise ConfigError(key, f"the chart has no such value{_suggestion(key)}") from None
        section, _, leaf = key.partition(".")
        if section == "env" and is_named_like_one(leaf):
            raise ConfigError(
                key, "holds a secret; put it into a Secret, and name that in envFromSecrets"
            ) from None
        # Where people put keys and passwords by mistake, also under names that do not tell.
        unsafe = section in ("env", "podOverlay") and isinstance(value, Scalar)
        what = HIDDEN if unsafe else shown(value, key)
        raise ConfigError(key, f"{what}: {problem(first, key)}") from None


def _written(parts: Sequence[int | str], given: Tree) -> tuple[str, Any]:
    """Return a key as it was written, with its value; pydantic adds the branch of a union."""
    here: Any = given
    for length, part in enumerate(parts):
        inside = part in here if isinstance(here, dict) else isinstance(here, list)
        if not inside:
            return ".".join(map(str, parts[:length] or parts)), here
        here = here[part]
    return ".".join(map(str, parts)), here


def _suggestion(key: str) -> str:
    known = [name for name, _ in flatten(Values().model_dump(by_alias=True))]
    close = get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]}?" if close else "; charts/fedtrain/README.md lists them"
