"""The interface of a reduction: messages of a group's clients in, means that all ranks share out.

An exchange is a generator: it yields each collective that it has started and goes on once that is
over. So reductions nest by `yield from`, and several can be under way at once (`Handle`).
"""

from collections.abc import Generator, Mapping
from typing import Any, ClassVar

from torch import Tensor

from trainer.exchange.group import Group, Work
from trainer.exchange.message import Delivery, Message, Places, Terms

Steps = Generator[Work, None, Delivery]


class Exchange:
    """One exchange: `add` each message of this rank, then `finish`."""

    def add(self, message: Message) -> Mapping[str, Tensor]:
        """Take a message; its vectors must not change any more.

        Returns what the others get of it, dense like the message itself, if the terms ask for a
        report (else nothing). Messages are added by client.
        """
        raise NotImplementedError

    def finish(self, places: Places, stop: bool) -> Steps:
        """Exchange; `places`: the round's, also if the terms knew them; `stop`: was this rank asked
        to? That rides along, from a rank without participants too.
        """
        raise NotImplementedError


class Reduction:
    """What a group does with its messages. The attributes say what fits it."""

    masks: ClassVar[bool] = True  # does it take messages of which places are left out?
    linear: ClassVar[bool] = True  # is the mean the weighted sum of what was sent?
    folds: ClassVar[bool] = False  # can it take messages before it is known which places travel?

    def begin(self, group: Group, terms: Terms) -> Exchange:
        """Start an exchange on these terms; on every rank, also one without participants."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold of this rank: tensors and numbers."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""


class Handle:
    """An exchange under way: its first collective has been started."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.work: Work | None = None
        self.delivery: Delivery | None = None
        self._proceed()

    def _proceed(self) -> None:
        try:
            self.work = next(self.steps)
        except StopIteration as end:
            self.work, self.delivery = None, end.value

    def wait(self) -> Delivery:
        """What came back, once the last collective is over."""
        while self.work is not None:
            self.work.wait()
            self._proceed()
        assert self.delivery is not None
        return self.delivery
