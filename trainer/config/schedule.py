"""Settings of when clients work and synchronise: phases, and stragglers.

Learning rates and due dates that follow from them are computed in trainer/engine/plan.py.
"""

from typing import ClassVar

from pydantic import model_validator

from trainer.config.base import LARGE, MANY, Only, Section, setting


class Phase(Section):
    """A stretch of rounds with the same amount of local work."""

    rounds: int | None = setting(
        None,
        help="length of the phase; empty in the last: until the end",
        unit="rounds",
        ge=1,
        le=MANY,
    )
    steps: int | None = setting(None, help="local steps per round (H)", unit="steps", ge=1, le=MANY)
    epochs: int | None = setting(
        None,
        help="passes over the client's data per round, instead of steps",
        unit="passes",
        ge=1,
        le=MANY,
    )

    lr_scale: float = setting(
        1.0, help="factor on optimizer.lr in this phase: 0.1 is a decay by ten", gt=0, le=LARGE
    )
    evaluate_every: int | None = setting(
        None,
        help="replaces evaluation.every in this phase",
        unit="rounds",
        ge=1,
        le=MANY,
        learned=False,
    )
    checkpoint_every: int | None = setting(
        None,
        help="replaces checkpoint.every in this phase; 0: none in it, nor after its last round",
        unit="rounds",
        ge=0,
        le=MANY,
        learned=False,
    )

    @model_validator(mode="after")
    def _one_measure_of_work(self) -> "Phase":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("set either steps or epochs, and leave the other empty (steps=)")
        return self


class Schedule(Section):
    """The phases of a run: Local SGD is one phase, post-local SGD is two."""

    batch_size: int | None = setting(
        32,
        help="samples per local step; empty: all samples of the client",
        unit="samples",
        ge=1,
        le=MANY,
    )
    phases: tuple[Phase, ...] = setting(
        (Phase(steps=5),), help="phases in order; the last may be open-ended", min_length=1
    )

    @model_validator(mode="after")
    def _only_the_last_is_open(self) -> "Schedule":
        if any(phase.rounds is None for phase in self.phases[:-1]):
            raise ValueError("phases: every phase but the last needs rounds")
        return self

    def phase(self, round_number: int) -> Phase:
        """Return the phase of round `round_number` (from 1); the last one never ends."""
        return self.place(round_number)[0]

    def place(self, round_number: int) -> tuple[Phase, int]:
        """Return the phase of a round, and the number of the round within the phase, from 1."""
        for phase in self.phases[:-1]:
            assert phase.rounds is not None
            if round_number <= phase.rounds:
                return phase, round_number
            round_number -= phase.rounds
        return self.phases[-1], round_number


class Stragglers(Section):
    """Clients that fail a round: some are unreachable, some finish only part of their steps."""

    effects: ClassVar[dict[str, Only]] = {"least": Only("slow", remedy="0.5")}
    unreachable: float = setting(
        0.0,
        help="share of a round's clients that never answer; drawn again each round, and at least "
        "one client remains",
        ge=0,
        lt=1,
    )
    slow: float = setting(
        0.0,
        help="probability that a reachable client finishes only part of its local steps",
        ge=0,
        le=1,
    )
    least: float = setting(
        0.1,
        help="smallest share of its steps that a slow client finishes; drawn between this and 1",
        gt=0,
        le=1,
    )
