"""torch's pipeline stages and schedules, as the pipeline worker uses them.

What travels between stages is known before, so torch infers nothing: its inference would send
Python objects, which the receiver unpickles.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
)

from trainer.config.parallel import Parallel
from trainer.workers.stopwatch import Stopwatch

DIMENSIONS = 8  # of a tensor that travels, at most
TYPES = (
    *(torch.float32, torch.float64, torch.bfloat16, torch.float16),
    *(torch.int64, torch.int32, torch.uint8, torch.bool),
)


class Section(nn.Module):
    """Layers of a stage, which return a tensor that can be sent; optionally under bf16 autocast."""

    def __init__(self, layers: nn.Sequential, *, bf16: bool, last: bool) -> None:
        super().__init__()
        self.layers, self.bf16, self.last = layers, bf16, last

    def forward(self, x: Tensor) -> Tensor:
        autocast: AbstractContextManager[Any] = nullcontext()
        if self.bf16:
            autocast = torch.autocast(x.device.type, dtype=torch.bfloat16)
        with autocast:
            output: Tensor = self.layers(x)
        if self.bf16 and self.last:
            output = output.float()
        return output.contiguous()


class Own(Stopwatch):
    """This rank's own computation within a step: how long it takes, and how it failed."""

    failure: BaseException | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure what is computed in the `with` block, and keep its failure."""
        try:
            with super().running():
                yield
        except Exception as error:
            self.failure = error.__cause__ or error  # torch wraps it in one of its own
            raise


class Stage(PipelineStage):
    """A stage that measures its computation, and keeps its own failures apart from others'."""

    def __init__(self, own: Own, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.own = own

    def forward_one_chunk(self, *args: Any, **kwargs: Any) -> Any:
        """Compute a microbatch's forward pass."""
        with self.own.running():
            return super().forward_one_chunk(*args, **kwargs)

    def backward_one_chunk(self, bwd_chunk_id: int, *args: Any, **kwargs: Any) -> None:
        """Compute a microbatch's backward pass, whose gradients can then be sent."""
        with self.own.running():
            super().backward_one_chunk(bwd_chunk_id, *args, **kwargs)
        gradients = self.bwd_cache.get(bwd_chunk_id, ())
        self.bwd_cache[bwd_chunk_id] = tuple(g if g is None else g.contiguous() for g in gradients)


def stage(
    section: nn.Module,
    place: tuple[int, int],
    group: dist.ProcessGroup | None,
    own: Own,
    between: tuple[Tensor, Tensor],
    device: torch.device,
) -> Stage:
    """Create stage `place` (its number, and how many there are); between: an input, an output."""
    number, count = place
    given, returned = (tensor.requires_grad_(tensor.is_floating_point()) for tensor in between)
    if number == 0:
        given = given.detach()
    return Stage(
        own, section, number, count, device, input_args=given, output_args=returned, group=group
    )


def schedule(settings: Parallel, stages: Sequence[Stage], count: int, loss: Any = None) -> Any:
    """Create the order of a rank's work on `count` microbatches; without a loss, only forward."""
    # The loss is scaled by what it is of the batch's, so torch need not divide gradients.
    if settings.schedule == "interleaved":
        return ScheduleInterleaved1F1B(list(stages), count, loss_fn=loss, scale_grads=False)
    # torch's 1F1B takes no fewer microbatches than there are stages. GPipe then keeps no more
    # activations than 1F1B may, and its idle share is the same.
    alternating = settings.schedule == "1f1b" and count >= settings.pipeline and loss is not None
    kind = Schedule1F1B if alternating else ScheduleGPipe
    return kind(stages[0], count, loss_fn=loss, scale_grads=False)


def described(tensor: Tensor | None, device: torch.device) -> Tensor:
    """Return type and shape of a tensor as numbers (2 + DIMENSIONS,); None: zeros."""
    numbers = [0] * (2 + DIMENSIONS)
    if tensor is not None:
        assert tensor.dim() <= DIMENSIONS, f"stages send at most {DIMENSIONS} dimensions"
        shape = list(tensor.shape)
        numbers[: 2 + len(shape)] = [TYPES.index(tensor.dtype), len(shape), *shape]
    return torch.tensor(numbers, device=device)


def like(description: Tensor) -> Tensor:
    """Return a tensor without values (on `meta`) of the type and shape that are described."""
    kind, count, *shape = description.tolist()
    return torch.empty(shape[:count], dtype=TYPES[kind], device="meta")
