"""The interface between the engine and what computes gradients: one device, later a pipeline.

A worker knows neither clients nor rounds.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from torch import Tensor

from trainer.layout import Layout
from trainer.tasks.task import Batch


class Worker(Protocol):
    """The live network: P parameters and B float buffers of this rank's part of the model."""

    layout: Layout
    params: Tensor  # (P,) which the network's parameters are views of
    grads: Tensor  # (P,) of the latest batch
    buffers: Tensor  # (B,)
    random: bool  # a step draws random numbers (for dropout, or in the task)

    def enter(self, anchor: Tensor, buffers: Tensor) -> None:
        """Load a model (P,) and its buffers (B,) into the network."""

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Fill `grads` with the gradient on (x, y); return the mean loss (), on the device."""

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of a value over all parts of the model, also those on other ranks."""

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
