"""The interface between the engine and what computes gradients: one device, or a pipeline of ranks.

A worker knows neither clients nor rounds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from trainer.layout import Layout
from trainer.tasks.task import Batch


@dataclass(frozen=True)
class Whole:
    """What of the whole model all ranks must know, whichever part they have."""

    layout: Layout
    buffers: int  # float values in buffers: BatchNorm's running means and variances
    dropout: bool  # it draws random numbers in training

    @classmethod
    def of(cls, model: nn.Module) -> "Whole":
        """Count a network."""
        return cls(
            Layout((name, parameter.shape) for name, parameter in model.named_parameters()),
            sum(buffer.numel() for buffer in model.buffers() if buffer.is_floating_point()),
            any(isinstance(module, nn.Dropout) for module in model.modules()),
        )

    @property
    def parameters(self) -> int:
        """P of the whole model."""
        return self.layout.size


class Passes(NamedTuple):
    """Gradients that a rank of a pipeline computed together with others; sums over them."""

    own: float = 0.0  # seconds of this rank's own computation
    all: float = 0.0  # seconds, with those in which it waited
    ideal: float = 0.0  # shares that it would have waited if all stages took equally long
    steps: float = 0.0


class Worker(Protocol):
    """The live network: P parameters and B float buffers of this rank's part of the model."""

    whole: Whole
    place: int  # of this rank among those that share the model; of one device: 0
    edges: Sequence[int]  # first layer of each stage, and their number; empty: it is not cut
    scores: bool  # losses and scores are known here; on the other ranks of a pipeline they are 0
    layout: Layout
    params: Tensor  # (P,) which the network's parameters are views of
    grads: Tensor  # (P,) of the latest batch
    buffers: Tensor  # (B,)
    random: bool  # a step draws random numbers (for dropout, or in the task)

    def enter(self, anchor: Tensor, buffers: Tensor) -> None:
        """Load a model (P,) and its buffers (B,) into the network."""

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Fill `grads` with the gradient on (x, y); return the mean loss (), on the device.

        All ranks of a pipeline are given the same batch.
        """

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of a value over all parts of the model, also those on other ranks."""

    def passes(self) -> Passes:
        """Return what was measured of gradients since the last call; zeros if none is shared."""

    def score(self, batches: Iterable[Batch]) -> tuple[float, float, int]:
        """Return, for test batches: correct predictions, sum of the losses, predictions."""

    def estimate(self, batches: Iterable[Batch]) -> None:
        """Replace `buffers` by their mean over these batches."""

    def state(self) -> list[Tensor]:
        """Return what a checkpoint must hold besides parameters and float buffers."""

    def load(self, state: list[Tensor]) -> None:
        """Restore the result of `state`."""

    def tensors(self) -> Mapping[str, Any]:
        """Return the network as it is loaded, each tensor by its own name."""

    def load_tensors(self, tensors: Mapping[str, Any]) -> None:
        """Load the network from the result of `tensors`."""
