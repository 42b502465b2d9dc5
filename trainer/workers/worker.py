"""The interface between the engine and what computes gradients: one device, later a pipeline."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from torch import Tensor

from trainer.layout import Layout
from trainer.tasks.task import Batch


class Worker(Protocol):
    """Holds the live network; P parameters and B float buffers of this rank's part of the model."""

    layout: Layout
    params: Tensor  # (P,) behind the network
    grads: Tensor  # (P,) of the latest batch
    buffers: Tensor  # (B,)
    random: bool  # does a step draw at random (dropout, or what the task draws)?

    def enter(self, anchor: Tensor, buffers: Tensor) -> None:
        """Load a model (P,) and its buffers (B,) into the network."""

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Fill `grads` with the gradient on (x, y); returns the mean loss (), on the device."""

    def total(self, value: Tensor) -> Tensor:
        """The sum of a value over the parts of the model that other ranks hold."""

    def score(self, batches: Iterable[Batch]) -> tuple[float, float, int]:
        """On test batches: predictions that are right, sum of the losses, predictions."""

    def estimate(self, batches: Iterable[Batch]) -> int:
        """Replace `buffers` by their mean over these batches; returns how many there were."""

    def state(self) -> list[Tensor]:
        """What a checkpoint must hold besides parameters and float buffers."""

    def load(self, state: list[Tensor]) -> None:
        """Take over what `state` returned."""

    def tensors(self) -> Mapping[str, Any]:
        """The network as it is loaded, each tensor by its own name."""
