"""The worker that has the whole model on one device.

Which batches it is given, and what is done with gradients, is decided by others.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from trainer.layout import Flat
from trainer.tasks.task import Batch, Task
from trainer.workers.worker import Passes, Whole


class Single:
    """Forward and backward pass of the unmodified network, optionally under bf16 autocast."""

    place = 0
    scores = True
    edges: Sequence[int] = ()

    def __init__(self, model: nn.Module, task: Task, *, bf16: bool = False) -> None:
        self.flat, self.task, self.bf16 = Flat(model), task, bf16
        self.model, self.layout = model, self.flat.layout
        self.params, self.grads, self.buffers = self.flat.params, self.flat.grads, self.flat.buffers
        self.whole = Whole.of(model)
        self.random = self.whole.dropout or task.random

    def enter(self, anchor: Tensor, buffers: Tensor) -> None:
        """Load a model (P,) and its buffers (B,) into the network."""
        self.params.copy_(anchor)
        self.buffers.copy_(buffers)

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Fill `grads` with the gradient on (x, y); return the mean loss (), on the device."""
        self.grads.zero_()
        loss = self.task.loss(self._output(x), y)
        loss.backward()
        return loss.detach()

    def total(self, value: Tensor) -> Tensor:
        """Return the value itself, since no other rank holds a part of the model."""
        return value

    def passes(self) -> Passes:
        """Return zeros: no other rank has a part in a gradient."""
        return Passes()

    @torch.no_grad()
    def score(self, batches: Iterable[Batch]) -> tuple[float, float, int]:
        """Return, for test batches: correct predictions, sum of the losses, predictions."""
        self.model.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.params.device)
        count = 0
        for x, y, units in batches:
            sums += self.task.score(self._output(x), y)
            count += units
        self.model.train()
        right, loss = sums.tolist()
        return right, loss, count

    @torch.no_grad()
    def estimate(self, batches: Iterable[Batch]) -> None:
        """Replace `buffers` by their mean over these batches.

        Pass i (from 0) has momentum 1 / (1 + i), which makes the running average a cumulative
        mean: m <- m + (value - m) / (1 + i) (Gu et al. 2023, appendix on evaluation). The batch
        counters keep their values.
        """
        norms = [m for m in self.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        momenta = [norm.momentum for norm in norms]
        counters = [counter.clone() for counter in self.flat.counters]
        for number, (x, *_) in enumerate(batches):
            for norm in norms:
                norm.momentum = 1 / (1 + number)
            self._output(x)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        self.load(counters)

    def state(self) -> list[Tensor]:
        """Return the integer buffers: BatchNorm's batch counters."""
        return self.flat.counters

    def load(self, state: list[Tensor]) -> None:
        """Restore the result of `state`."""
        for counter, saved in zip(self.flat.counters, state, strict=True):
            counter.copy_(saved)

    def tensors(self) -> Mapping[str, Tensor]:
        """Return the network as it is loaded, each tensor by its own name."""
        return dict(self.model.state_dict())

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the network from the result of `tensors`."""
        self.model.load_state_dict(dict(tensors))

    def _output(self, x: Tensor) -> Tensor:
        x = self.task.inputs(x)
        if not self.bf16:
            output: Tensor = self.model(x)
            return output
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            output = self.model(x)
        return output.float()
