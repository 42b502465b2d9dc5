"""The interface between the engine and a kind of problem.

The engine knows neither images nor tokens: a task gives it batches, a loss and scores.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

# Inputs (B, ...) as stored, targets (B, ...), and how many predictions the mean loss is over: it is
# known before the batch is on the device, which would have to be waited for.
Batch = tuple[Tensor, Tensor, int]


class Task(Protocol):
    """A data set, and the problem to learn from it."""

    random: bool  # a visit to a batch draws random numbers (augmentation, label noise)
    fingerprint: str  # of all samples, whatever their path; rank 0's, on the others maybe empty
    alike: bool  # every rank has the fingerprint, and it must be the same
    home: torch.device  # where the places of samples are
    perplexed: bool  # predictions are of tokens, so that exp(mean loss) is a perplexity

    def model(self) -> nn.Module:
        """Create a network for this data, on the CPU, with weights from torch's default stream."""

    def split(self) -> Sequence[Tensor]:
        """Return each client's training samples: places (n,) int64, a function of the seed only."""

    def hold(self, parts: Sequence[Tensor], clients: Sequence[int]) -> Sequence[Tensor]:
        """Keep only these clients' samples in memory; return all parts as places among them."""

    def batches(
        self, places: Iterable[Tensor], stream: torch.Generator | None, *, training: bool = True
    ) -> Iterator[Batch]:
        """Yield the samples at each of `places` (B,), on the device.

        With `stream` they are augmented and, if training, have noisy labels. Samples that stay in
        files are read ahead, so the batches must be consumed to the end.
        """

    def inputs(self, x: Tensor) -> Tensor:
        """Return the input of the network for x, such as normalised values."""

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """Return the batch's mean loss, ()."""

    def units(self, y: Tensor) -> Tensor:
        """Return the number of predictions of some of a batch's targets, (), on the device."""

    def score(self, output: Tensor, y: Tensor) -> Tensor:
        """Return (2,) float64: the number of correct predictions, and the sum of the losses."""

    def test(self, batch_size: int) -> Iterator[Batch]:
        """Return this rank's share of the test samples, in batches."""
