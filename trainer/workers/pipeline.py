"""The worker that has a stage of the model; the other stages are on the ranks of its line.

All ranks of a line are given the same batches, in the same order. A batch is cut into M equal
microbatches, whose gradients add up to the batch's: each one's mean loss counts as its share of the
batch's predictions. Activations go to the next rank, their gradients back, both by torch's
pipelines (torch.distributed.pipelining). Which clients are trained, and what is done with
gradients, is decided by others.
"""

import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trainer.config.errors import ConfigError
from trainer.config.parallel import Parallel
from trainer.tasks.task import Batch, Task
from trainer.workers.single import Single
from trainer.workers.stages import Own, Section, described, like, schedule, stage
from trainer.workers.stopwatch import Stopwatch
from trainer.workers.worker import Passes, Whole

VOTE = 4  # bytes by which torch's stages tell each other, once, that nothing is to be inferred
MOST_SHAPES = 16  # of batches whose buffers are kept
FORGOTTEN = (
    f"batches have more than {MOST_SHAPES} shapes, each with a schedule; the one that was not used "
    "for longest is now created again when its shape returns, at the cost of a forward pass"
)

log = logging.getLogger("fedctl")


class Waiting(Protocol):
    """A collective under way."""

    def wait(self) -> object: ...


class Line(Protocol):
    """The ranks that hold a model's stages, in order (trainer/exchange/group.py)."""

    rank: int
    size: int
    ranks: Any
    device: torch.device

    def all_reduce(self, tensor: Tensor, kinds: Mapping[str, int] | None) -> Waiting:
        """Start to replace a tensor by its sum over the ranks."""

    def passed(self, kind: str, count: int) -> None:
        """Count bytes that were handed to torch's pipelines."""

    def together(self) -> AbstractContextManager[None]:
        """Report any failure inside the `with` block as the loss of another rank."""


@dataclass(frozen=True)
class Flow:
    """A schedule for batches of one shape, and what a step of it sends from this rank."""

    schedule: Any
    sent: int  # bytes


class Pipeline(Single):
    """Forward and backward pass of this rank's stages, together with its line's other ranks."""

    def __init__(
        self,
        model: nn.Sequential,
        edges: Sequence[int],
        task: Task,
        line: Line,
        settings: Parallel,
        *,
        bf16: bool = False,
    ) -> None:
        """Take from the whole model the stages of this rank; edges: from trainer/workers/cut.py."""
        whole = Whole.of(model)
        refuse(model, settings)
        layers = list(model.named_children())
        parts = [OrderedDict(layers[a:b]) for a, b in pairwise(edges)]
        self.numbers = range(line.rank, len(parts), line.size)  # of this rank's stages
        held = OrderedDict(pair for at in self.numbers for pair in parts[at].items())
        super().__init__(nn.Sequential(held).to(line.device).train(), task, bf16=bf16)
        self.whole, self.random = whole, whole.dropout or task.random
        self.edges, self.line, self.settings = list(edges), line, settings
        self.place, self.count = line.rank, len(parts)
        self.scores = self.count - 1 in self.numbers
        self.sections = {
            at: Section(nn.Sequential(parts[at]), bf16=bf16, last=at == self.count - 1)
            for at in self.numbers
        }
        self.flows: OrderedDict[Any, Flow] = OrderedDict()  # by shape, least recent first
        self.forgot = False  # whether a schedule was dropped for want of room
        self.units = torch.ones(())  # predictions of the batch, on the device
        self.own, self.all = Own(line.device), Stopwatch(line.device)
        self.ideal: list[float] = []  # idle share of each gradient, if all stages were equal

    # ------------------------------------------------------------------ passes

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Fill `grads`; return the mean loss () where it is known, and 0 on the other ranks."""
        self.grads.zero_()
        self.units = self.task.units(y)
        losses: list[Tensor] = []
        with self.all.running():
            self._step(x, train=True, target=y, losses=losses)
        self.ideal.append(self.settings.idle(microbatches(len(x), self.settings)))
        return torch.stack(losses).sum().detach() if losses else self.grads.new_zeros(())

    def _loss(self, output: Tensor, y: Tensor) -> Tensor:
        """Return a microbatch's part of the batch's mean loss, ()."""
        with self.own.running():
            loss = self.task.loss(output, y)
            return loss * (self.task.units(y).double() / self.units).to(loss.dtype)

    def _output(self, x: Tensor) -> Tensor:
        """Return the network's output where it is known, and nothing on the other ranks."""
        output = self._step(x, train=False)
        return x.new_empty(0) if output is None else output

    def _step(self, x: Tensor, *, train: bool, target: Tensor | None = None, **more: Any) -> Any:
        flow = self._flow(x, train=train)
        given = (self.task.inputs(x),) if 0 in self.numbers else ()
        if self.scores and train:
            more["target"] = target
        self.own.failure = None
        try:
            with self.line.together():
                output = flow.schedule.step(*given, return_outputs=not train, **more)
        except Exception:
            if self.own.failure:
                raise self.own.failure from None
            raise
        self.line.passed("pipeline", flow.sent)
        return output

    # ------------------------------------------------------------------ schedules

    def _flow(self, x: Tensor, *, train: bool) -> Flow:
        """Return the schedule for batches like x (B, ...), as stored; the first one creates it."""
        key = (train, self.model.training, x.dtype, *x.shape)
        if key not in self.flows:
            # All ranks of the line see the same shapes, so they create and forget the same ones.
            if len(self.flows) == MOST_SHAPES:
                self.flows.popitem(last=False)
                if not self.forgot and self.place == 0:
                    log.warning(FORGOTTEN)
                self.forgot = True
            self.flows[key] = self._created(x, train=train)
        self.flows.move_to_end(key)
        return self.flows[key]

    def _created(self, x: Tensor, *, train: bool) -> Flow:
        count = microbatches(len(x), self.settings)
        x = x[: len(x) // count]
        tensors = self._between(self.task.inputs(x) if 0 in self.numbers else x)
        stages = [
            stage(
                section,
                (at, self.count),
                self.line.ranks,
                self.own,
                (tensors[at], tensors[at + 1]),
                self.line.device,
            )
            for at, section in self.sections.items()
        ]
        forward = [_bytes(tensors[at + 1]) for at in self.numbers if at < self.count - 1]
        backward = [_bytes(tensors[at]) for at in self.numbers if at and train]
        self.line.passed("control", VOTE * (len(forward) + sum(at > 0 for at in self.numbers)))
        loss = self._loss if train else None
        order = schedule(self.settings, stages, count, loss)
        return Flow(order, count * (sum(forward) + sum(backward)))

    def _between(self, x: Tensor) -> list[Tensor]:
        """Return, without values, the input of the first stage (on its rank), and all outputs.

        They are computed once as a step will, since types may depend on the mode: an encoder layer
        ignores autocast in evaluation. What that pass draws and counts is taken back.
        """
        found = [torch.empty_like(x, device="meta")]
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            for at in range(self.count):
                output = None
                if at in self.sections:
                    values = torch.zeros_like(found[-1], device=x.device) if at else x
                    output = self.sections[at](values)
                told = described(output, x.device)
                self.line.all_reduce(told, {"control": told.numel()}).wait()
                found.append(like(told))
        for buffer, before in zip(self.model.buffers(), buffers, strict=True):
            buffer.copy_(before)
        return found

    # ------------------------------------------------------------------ the whole model

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of a value over the stages."""
        total = value.clone()
        self.line.all_reduce(total, {"control": total.numel()}).wait()
        return total

    def passes(self) -> Passes:
        """Return what was measured of gradients since the last call."""
        found = Passes(self.own.read(), self.all.read(), sum(self.ideal), len(self.ideal))
        self.ideal.clear()
        return found

    @torch.no_grad()
    def score(self, batches: Iterable[Batch]) -> tuple[float, float, int]:
        """Return the scores where they are known, and zeros on the other ranks."""
        if self.scores:
            result = super().score(batches)
        else:
            self.model.eval()
            for x, *_ in batches:
                self._output(x)
            self.model.train()
            result = (0.0, 0.0, 0)
        self.own.read()  # only gradients are measured
        return result

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Load this rank's stages from the tensors of the whole network."""
        self.model.load_state_dict({name: tensors[name] for name in self.model.state_dict()})


def microbatches(rows: int, settings: Parallel) -> int:
    """Return into how many equal microbatches a batch is cut: M, or as many as it divides into."""
    fitting = (m for m in range(settings.microbatches, 0, -1) if not rows % m and settings.fits(m))
    return next(fitting)


def refuse(model: nn.Module, settings: Parallel) -> None:
    """Raise if the model cannot be a pipeline of microbatches."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if norms and settings.microbatches > 1:
        raise ConfigError(
            "parallel.microbatches",
            f"{settings.microbatches}, but the model has BatchNorm, whose statistics would be "
            "those of a microbatch; set it to 1, or choose a model without (model.norm=group)",
        )


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
