"""Checks before a run creates anything: paths, ports, installed packages."""

import importlib.util
import json
import os
import shlex
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fedctl import bundled
from fedctl.arguments import refuse_no_folder, with_ranks
from fedctl.errors import RunError, UserError
from fedctl.report import runs
from trainer import lock, manifest
from trainer.config.errors import ConfigError, install
from trainer.config.load import load, validate
from trainer.config.paths import expanded
from trainer.config.schema import Experiment, covers
from trainer.files import not_a_file, not_regular
from trainer.storage.objects import VARIABLE

# What every rank imports, or may.
MODULES = (
    *("torch", "torchvision", "numpy", "safetensors", "sklearn", "sentencepiece", "psutil"),
    "prometheus_client",
)


@dataclass(frozen=True)
class Plan:
    """A run that may start: nothing of it exists yet, unless it resumes."""

    experiment: Experiment
    folder: Path
    resume: bool = False
    allowed: tuple[str, ...] = ()  # what may be another than before, for a run that resumes
    sets: tuple[str, ...] = ()  # what is, as KEY=VALUE


def plan(
    source: str | None,
    sets: Sequence[str],
    ranks: int | None,
    out: Path | None,
    resume: Path | None,
    allowed: Sequence[str] = (),
) -> Plan:
    """Plan the run that the options of `fedctl run` describe."""
    sets = with_ranks(sets, ranks)
    if resume is not None:
        if source or out:
            raise UserError("--resume continues the run in its folder: drop PRESET, FILE and --out")
        return resumed(resume, sets, allowed)
    if allowed:
        raise UserError("--allow-changed is for a run that resumes; name it with --resume RUN")
    if source is None:
        raise UserError("name a PRESET or FILE to run; `fedctl presets` lists the presets")
    return fresh(source, sets, out)


def fresh(source: str, sets: Sequence[str], out: Path | None) -> Plan:
    """Plan a new run of a preset or file; raise before anything was created."""
    if source in bundled.sweeps():
        raise UserError(
            f"{source}: is a sweep, several runs; start them with: fedctl sweep {source}"
        )
    experiment, _origins = load(source, sets=sets, presets=bundled.PRESETS)
    experiment = with_absolute_data(experiment)
    folder = out or _unused(Path("runs"), experiment.name)
    refuse_no_folder(folder)
    _refuse_odd_name("--out", folder)
    if folder.is_dir() and any(folder.iterdir()):
        is_run, quoted = (folder / runs.EXPERIMENT).is_file(), shlex.quote(str(folder))
        remedy = f", or continue its run with --resume {quoted}" if is_run else ""
        raise UserError(f"--out {folder}: exists and is not empty; name another folder{remedy}")
    machine_is_ready(experiment)
    return Plan(experiment, folder)


def _refuse_odd_name(option: str, folder: Path) -> None:
    """Raise if the ranks could not meet in this folder: torch takes names in UTF-8 alone."""
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError:
        name = str(folder.absolute()).encode("utf-8", "backslashreplace").decode()
        raise UserError(f"{option} {name}: is not a name in UTF-8; use another folder") from None


def holds_nothing(folder: Path) -> bool:
    """Return whether a folder is empty, but for the logs and the lock of a run that starts."""
    return {path.name for path in folder.iterdir()} <= {"logs", lock.NAME}


def resumed(folder: Path, sets: Sequence[str] = (), allowed: Sequence[str] = ()) -> Plan:
    """Plan the continuation of the run in `folder`, with its own settings but for `sets`."""
    _refuse_odd_name("--resume", folder)
    path = folder / runs.EXPERIMENT
    if not path.is_file():
        raise UserError(f"--resume {folder}: not a run folder, it has no {runs.EXPERIMENT}")
    if odd := not_a_file(folder):
        raise UserError(f"--resume {folder}: {odd} {not_regular(odd)}")
    for kept in (folder / lock.NAME, *folder.glob("logs/*.log")):
        if kept.exists() and not os.access(kept, os.R_OK | os.W_OK):
            raise UserError(
                f"--resume {folder}: {kept} cannot be written by this user; change its permissions"
            )
    if holder := lock.holder(folder):
        raise UserError(f"--resume {folder}: is still running ({holder})")
    before, _origins = load(path)
    experiment, _origins = load(path, sets=sets)
    experiment = with_absolute_data(experiment)
    done = runs.checkpoint_round(folder)
    if runs.finished(folder) and experiment.rounds <= before.rounds:
        raise UserError(
            f"--resume {folder}: has finished; `fedctl report {shlex.quote(str(folder))}` shows "
            f"it; to continue, set rounds=N with N above {before.rounds}"
        )
    if not done:
        raise UserError(
            f"--resume {folder}: has no checkpoint; set checkpoint.every for one every few rounds"
        )
    _refuse_changes(_saved(folder) or before, experiment, allowed)
    machine_is_ready(experiment)
    return Plan(experiment, folder, resume=True, allowed=tuple(allowed), sets=tuple(sets))


def _saved(folder: Path) -> Experiment | None:
    """Return the experiment of the newest checkpoint; None: only the trainer can tell."""
    for checkpoint in manifest.found(folder / manifest.FOLDER):
        try:
            return validate(manifest.read(checkpoint).experiment)
        except (manifest.Damaged, ConfigError):
            continue
    return None


def _refuse_changes(before: Experiment, after: Experiment, allowed: Sequence[str]) -> None:
    changed = before.differences(after)
    for key in before.unfit(after):
        old, new = changed[key]
        raise ConfigError(
            key,
            f"is {old} in this run; the saved state does not fit {new}; start a new run, from its "
            "model if you like (model.weights)",
        )
    for name in allowed:
        if name not in ("data", "metrics") and not any(covers(name, key) for key in changed):
            raise UserError(f"--allow-changed {name}: not a setting that --set changes")
    for key, (old, new) in changed.items():
        if not any(covers(name, key) for name in allowed):
            raise ConfigError(
                key,
                f"is {old} in this run; {new} would make it a different experiment; start a new "
                f"run, or resume with --allow-changed {key}",
            )


def with_absolute_data(experiment: Experiment) -> Experiment:
    """Return the experiment with absolute paths of its data, which any working folder can use.

    Raise if they, or the weights to start from, are not there. The weights' path stays as it is,
    since it says what is learned.
    """
    if experiment.model.weights is not None:
        _absolute("model.weights", experiment.model.weights, is_file=True)
    if experiment.data.path is None and getattr(experiment.data.tokenizer, "model", None) is None:
        return experiment
    tree = json.loads(experiment.canonical())
    data = tree["data"]
    for key, section, name, is_file in (
        ("data.path", data, "path", data["name"] == "npz"),
        ("data.tokenizer.model", data["tokenizer"], "model", True),
    ):
        if (given := section.get(name)) is not None:
            section[name] = str(_absolute(key, given, is_file=is_file))
    return validate(tree)


def _absolute(key: str, given: str, *, is_file: bool) -> Path:
    """Return an absolute path; raise if nothing is there, or what cannot be read."""
    try:
        path = Path(os.path.abspath(expanded(key, given)))
        there = path.exists()
    except OSError as error:  # too long, say
        raise ConfigError(key, f"{given}: {error}") from None
    if not there:
        raise ConfigError(key, f"{given} does not exist")
    if is_file and not path.is_file():
        raise ConfigError(key, f"{given} is not a file")
    if not os.access(path, os.R_OK):
        raise ConfigError(key, f"{given} is not readable by this user")
    return path


def _unused(parent: Path, name: str) -> Path:
    stem = parent / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    folder, count = stem, 1
    while folder.exists():
        count += 1
        folder = stem.with_name(f"{stem.name}-{count}")
    return folder


def machine_is_ready(experiment: Experiment) -> None:
    """Raise if training needs a package that is missing, a port that is taken, or another place."""
    if os.environ.get(VARIABLE):
        raise UserError(
            f"{VARIABLE}: `fedctl run` keeps a run in its folder; unset it, and copy the folder "
            "to the store at the end (docs/storage.md has a command that runs there)"
        )
    missing = [module for module in MODULES if importlib.util.find_spec(module) is None]
    if missing:
        raise RunError(f"training needs {missing[0]}, which is not installed; {install('trainer')}")
    _ports_are_free(experiment)


def _ports_are_free(experiment: Experiment) -> None:
    first, host = experiment.metrics.port, experiment.metrics.host
    if not first:
        return
    if first + experiment.ranks - 1 > 65535:
        raise ConfigError(
            "metrics.port", f"{first} leaves no port for rank {65536 - first}; the last is 65535"
        )
    for rank in range(experiment.ranks):
        try:
            family, *_, address = socket.getaddrinfo(
                host, first + rank, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                # As the metrics server does: a port with lingering connections is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except socket.gaierror:
            raise ConfigError("metrics.host", f"{host} is not an address of this machine") from None
        except OSError as error:
            problem = (error.strerror or str(error)).lower()
            raise ConfigError(
                "metrics.port",
                f"{first + rank} on {host}, where rank {rank} would serve its metrics: {problem}; "
                "choose another, or 0 for any free one",
            ) from None
