"""Compatibility of the parts of an experiment, derived from what each part declares.

A section names the capabilities that it needs, those that an experiment lacks with it, and which of
its settings others make ineffective. A new part declares the same of itself, so no list of
combinations is kept anywhere.
"""

import typing
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trainer.config.data import TEXT
from trainer.config.models import MODELS

if TYPE_CHECKING:
    from trainer.config.base import Section
    from trainer.config.data import Division
    from trainer.config.schema import Experiment

LOCAL = "local training"
UPDATES = "updates"
EVERYONE = "everyone"
SINGLE = "single precision"
ROWS = "whole rows"
WHOLE = "whole vectors"
LATE = "late means"
TREND = "a change of every value"
APART = "clients that only their own steps move"

WITHOUT = {  # why an experiment lacks the capability, as a clause of the error message
    LOCAL: "{name} has none",
    UPDATES: "{name}'s clients send gradients",
    ROWS: "{name} leaves single values out",
    WHOLE: "{name} leaves values out",
    LATE: "{name}'s clients need those of this round",
    TREND: "{name} changes few values in a round",
    APART: "{name} corrects each client by its own steps",
}


def lacking(experiment: "Experiment") -> Iterator[tuple[str, str, str]]:
    """Yield each capability that the experiment lacks, why, and the setting that would give it."""
    for section in ("algorithm", "sync", "codec"):
        part = getattr(experiment, section)
        for capability in sorted(part.lacks):
            why = WITHOUT[capability].format(name=part.name)
            remedy = choose(experiment, section, lacks=capability)
            if capability in part.instead:
                key, value = part.instead[capability]
                if getattr(part, key) == value:
                    continue
                remedy = f"{section}.{key}={value} or {remedy}"
            yield capability, why, remedy
    if getattr(experiment.codec, "step_ahead", False):
        yield APART, "codec.step_ahead starts each from values of its own", "codec.step_ahead=false"
    if experiment.model.precision == "fp64":
        yield SINGLE, "model.precision is fp64", "model.precision=fp32"
    for key, value, all_take_part in (
        ("participation", experiment.participation, 1),
        ("stragglers.unreachable", experiment.stragglers.unreachable, 0),
    ):
        if value != all_take_part:
            yield EVERYONE, f"{key} is {value:g}", f"{key}={all_take_part}"


def choose(experiment: "Experiment", section: str, *, needs: str = "", lacks: str = "") -> str:
    """Return the choices of a section that neither need nor lack a capability, as settings."""
    field = type(experiment).model_fields[section]
    kinds: tuple[type[Section], ...] = typing.get_args(field.annotation)
    fitting = [kind for kind in kinds if needs not in kind.needs and lacks not in kind.lacks]
    names = [str(kind.model_fields["name"].default) for kind in fitting]
    return f"{section}.name={' or '.join(names[:2])}"


def misfits(experiment: "Experiment") -> Iterator[str]:
    """Yield `key: problem; remedy` for each pair of parts that do not fit each other."""
    yield from _of_another_kind(experiment)
    if getattr(experiment.codec, "budget", None) and experiment.parallel.pipeline > 1:
        yield (
            "codec.budget: is of a client's whole message, of which each of a pipeline's stages "
            "sends a part; drop it, or set parallel.pipeline=1"
        )
    yield from _of_nodes(experiment)
    for capability, why, remedy in lacking(experiment):
        if capability in experiment.schedule.nodes.required:
            need = experiment.schedule.nodes.required[capability]
            yield f"schedule.nodes.clients: {need}, and {why}; set it to 1, or {remedy}"
        for section in ("sync", "codec"):
            part: Section = getattr(experiment, section)
            if capability in part.required:
                other = choose(experiment, section, needs=capability)
                yield (
                    f"{section}.name: {part.name} {part.required[capability]}, and {why}; "  # type: ignore[attr-defined]
                    f"set {other}, or {remedy}"
                )


def _of_nodes(experiment: "Experiment") -> Iterator[str]:
    """Yield where the clients of a node would not train side by side, step by step."""
    clients, schedule, slow = experiment.clients, experiment.schedule, experiment.stragglers.slow
    size = schedule.nodes.clients
    if size == 1:
        return
    if clients % size:
        near = max(part for part in range(1, size) if clients % part == 0)
        yield f"schedule.nodes.clients: {clients} clients are no whole nodes; set it to {near}"
    if experiment.replicas != clients or experiment.placement != "fixed":
        ranks = clients * experiment.parallel.pipeline
        yield (
            "schedule.nodes.clients: a node's clients train at the same time, each on a rank of "
            f"its own; set ranks={ranks} and placement=fixed, or it to 1"
        )
    if slow or any(phase.steps is None for phase in schedule.phases):
        yield (
            "schedule.nodes.clients: a node's clients take the same steps; set stragglers.slow=0, "
            "and steps instead of epochs in each phase, or it to 1"
        )


def _of_another_kind(experiment: "Experiment") -> Iterator[str]:
    """Yield a model, a partition and a target for other samples than the experiment's."""
    data, model = experiment.data, experiment.model.name
    if MODELS[model].takes != data.kind:
        fitting = [name for name, network in MODELS.items() if network.takes == data.kind]
        yield (
            f"model.name: {model} takes {MODELS[model].takes}, and data.name={data.name} is "
            f"{data.kind}; set model.name to {', '.join(fitting[:3])} or another model for it"
        )
    if data.kind not in data.partition.divides:
        field = type(data).model_fields["partition"]
        kinds: tuple[type[Division], ...] = typing.get_args(field.annotation)
        names = [kind.model_fields["name"].default for kind in kinds if data.kind in kind.divides]
        yield (
            f"data.partition.name: {data.partition.name} divides {data.partition.divides[0]}, and "
            f"data.name={data.name} is {data.kind}; set it to {', '.join(names)}"
        )
    if data.kind != TEXT and experiment.evaluation.target_perplexity is not None:
        yield (
            f"evaluation.target_perplexity: only text has a perplexity, and data.name={data.name} "
            f"is {data.kind}; set evaluation.target to an accuracy"
        )


def ineffective(section: "Section", prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the key of each setting that is not at its default and has no effect, and why."""
    for name, field in type(section).model_fields.items():
        value, key = getattr(section, name), f"{prefix}{name}"
        if hasattr(value, "effects"):
            yield from ineffective(value, f"{key}.")
        for at, item in enumerate(value if isinstance(value, tuple) else ()):
            if hasattr(item, "effects"):
                yield from ineffective(item, f"{key}.{at}.")
        only = section.effects.get(name)
        if only is None or value == field.default or only.holds(getattr(section, only.key)):
            continue
        other, now = f"{prefix}{only.key}", _as_written(getattr(section, only.key))
        remedies = " or ".join(map(_as_written, only.values)) or only.remedy
        yield key, f"has no effect while {other} is {now}; drop it, or set {other}={remedies}"


def _as_written(value: object) -> str:
    words = {True: "true", False: "false", None: "null"}
    return words[value] if value is None or isinstance(value, bool) else f"{value}"
