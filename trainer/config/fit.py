"""Which parts of an experiment fit each other, from what they say of themselves.

A section names the capabilities that it needs, and those that an experiment lacks with it. Whoever
adds a part says the same of it, and no list of combinations is kept anywhere.
"""

import typing
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.config.base import Section
    from trainer.config.schema import Experiment

LOCAL = "local training"
UPDATES = "updates"
EVERYONE = "everyone"
SINGLE = "single precision"

WITHOUT = {  # what an experiment without the capability is like, for the sentence
    LOCAL: "{name} has none",
    UPDATES: "{name}'s clients send gradients",
}


def lacking(experiment: "Experiment") -> Iterator[tuple[str, str, str]]:
    """Each capability that the experiment does not have, why, and what would give it."""
    for capability in sorted(experiment.algorithm.lacks):
        why = WITHOUT[capability].format(name=experiment.algorithm.name)
        yield capability, why, choose(experiment, "algorithm", lacks=capability)
    if experiment.model.precision == "fp64":
        yield SINGLE, "model.precision=fp64 is for comparisons", "model.precision=fp32"
    for key, value, all_take_part in (
        ("participation", experiment.participation, 1),
        ("stragglers.unreachable", experiment.stragglers.unreachable, 0),
    ):
        if value != all_take_part:
            yield EVERYONE, f"{key} is {value:g}", f"{key}={all_take_part}"


def choose(experiment: "Experiment", section: str, *, needs: str = "", lacks: str = "") -> str:
    """The other choices of a section that neither need nor lack a capability, as settings."""
    field = type(experiment).model_fields[section]
    kinds: tuple[type[Section], ...] = typing.get_args(field.annotation)
    fitting = [kind for kind in kinds if needs not in kind.needs and lacks not in kind.lacks]
    names = [str(kind.model_fields["name"].default) for kind in fitting]
    return f"{section}.name={' or '.join(names[:2])}"


def misfits(experiment: "Experiment") -> Iterator[str]:
    """One sentence for each pair of parts that do not fit: `key: problem; remedy`."""
    for capability, why, remedy in lacking(experiment):
        for section in ("sync", "codec"):
            part: Section = getattr(experiment, section)
            if capability in part.needs:
                other = choose(experiment, section, needs=capability)
                yield (
                    f"{section}.name: {part.name} {part.needs[capability]}, and {why}; "  # type: ignore[attr-defined]
                    f"set {other}, or {remedy}"
                )
