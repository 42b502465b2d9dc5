"""The interface between the engine and a kind of problem.

The engine knows no images and no tokens: it asks a task for batches, a loss and scores.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]  # inputs (B, ...) as stored, targets (B, ...)


class Task(Protocol):
    """A data set with what is to be learned from it."""

    random: bool  # does a visit to a batch draw at random (augmentation, label noise)?

    def model(self) -> nn.Module:
        """A new network for this data, on the CPU, with weights drawn from torch's own stream."""

    def split(self) -> Sequence[Tensor]:
        """Each client's training samples: places (n,) int64, a pure function of the seed."""

    def hold(self, parts: Sequence[Tensor], clients: Sequence[int]) -> Sequence[Tensor]:
        """Keep only these clients' samples in memory; returns all parts as places among them."""

    def batches(
        self, places: Iterable[Tensor], stream: torch.Generator | None, *, training: bool = True
    ) -> Iterator[Batch]:
        """The samples at each of `places` (B,), on the device.

        With `stream`: augmented, and (if training) with noisy labels. Samples that stay in files
        are read ahead, so the batches must be consumed to the end.
        """

    def inputs(self, x: Tensor) -> Tensor:
        """What the network is given for x, such as normalised values."""

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """The batch's mean loss, ()."""

    def units(self, y: Tensor) -> int:
        """How many predictions the mean is over."""

    def score(self, output: Tensor, y: Tensor) -> Tensor:
        """(2,) float64: predictions that are right, and the sum of the losses."""

    def test(self, batch_size: int) -> Iterator[Batch]:
        """This rank's share of the test samples, in batches."""
