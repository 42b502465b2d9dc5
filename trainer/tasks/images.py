"""Image classification.

No other module above data/ knows pixels.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trainer.config.models import MODELS
from trainer.config.schema import Experiment
from trainer.data import load
from trainer.data.batches import Normalise, noisy
from trainer.data.fingerprint import fingerprint
from trainer.data.partition import held, partition, without_holdout
from trainer.data.stored import feed
from trainer.models import norm
from trainer.tasks.task import Batch

# A data set of at most this many values is normalised once instead of batch by batch, with the same
# bits. If steps are short, this saves a tenth of their time. Floats take four times the memory.
MOST_READY = 1 << 22


class Images:
    """Labelled images, in memory or in their files; the loss is the mean cross-entropy."""

    alike = perplexed = False

    def __init__(
        self, experiment: Experiment, device: torch.device, rank: int, ranks: int, *, download: bool
    ) -> None:
        """Load the data set; `download`: whether this process may download it."""
        data = load.load(experiment.data, download=download)
        self.experiment, self.device = experiment, device
        self.fingerprint = fingerprint(data) if rank == 0 else ""
        self.classes, self.shape, self.augment = data.classes, data.shape, data.augment
        self.noise = experiment.data.label_noise
        self.random = data.augment or self.noise > 0
        # samples that stay in their files are indexed on the CPU, like their labels
        self.home = device if isinstance(data.x_train, Tensor) else torch.device("cpu")
        self.x, self.y = data.x_train, data.y_train
        # every rank evaluates its share: each `ranks`-th image
        self.x_test = data.x_test[rank::ranks].to(device)
        self.y_test = data.y_test[rank::ranks].to(device)
        double = experiment.model.precision == "fp64"
        self.normalise = Normalise(
            data.mean, data.std, data.scale, device, torch.float64 if double else torch.float32
        )
        # augmentation needs the integers, and pads with their black
        self.ready = (
            isinstance(self.x, Tensor) and self.x.numel() <= MOST_READY and not data.augment
        )

    def model(self) -> nn.Module:
        """Create the network that the experiment names, with as many classes as the data."""
        chosen = self.experiment.model
        network: nn.Module = MODELS[chosen.name](
            classes=self.classes, in_shape=self.shape, **norm.chosen(chosen.norm, chosen.groups)
        )
        return network.double() if chosen.precision == "fp64" else network

    def split(self) -> Sequence[Tensor]:
        """Return each client's samples, without those that it holds out."""
        drawing = self.experiment.data
        parts = partition(
            drawing.partition, self.y.numpy(), self.experiment.clients, self.experiment.seed
        )
        return without_holdout(parts, drawing.holdout)

    def hold(self, parts: Sequence[Tensor], clients: Sequence[int]) -> Sequence[Tensor]:
        """Move these clients' samples to the device, each once, even if clients share them."""
        kept, parts = held(self.experiment.data.partition, parts, clients)
        if kept is not None:
            self.x, self.y = self.x[kept], self.y[kept]
        self.x, self.y = self.x.to(self.device), self.y.to(self.home)
        if self.ready:
            assert isinstance(self.x, Tensor) and isinstance(self.x_test, Tensor)
            self.x, self.x_test = self.normalise(self.x), self.normalise(self.x_test)
        return parts

    def inputs(self, x: Tensor) -> Tensor:
        """Return normalised values, (B, C, H, W)."""
        return x if self.ready else self.normalise(x)

    def batches(
        self, places: Iterable[Tensor], stream: torch.Generator | None, *, training: bool = True
    ) -> Iterator[Batch]:
        """Yield images (B, C, H, W), as integers if the data is not ready, and labels (B,), B."""
        for x, y in feed(self.x, self.y, places, stream if self.augment else None):
            if training and self.noise and stream is not None:
                y = noisy(y, self.noise, self.classes, stream)
            yield x, y, len(y)

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """Return the mean cross-entropy, ()."""
        return cross_entropy(output, y)

    def units(self, y: Tensor) -> Tensor:
        """Return the number of images, (): each is one prediction."""
        return y.new_full((), len(y))

    def score(self, output: Tensor, y: Tensor) -> Tensor:
        """Return the number of correctly classified images and the sum of losses: (2,) float64."""
        right = (output.argmax(1) == y).sum()
        return torch.stack([right.double(), cross_entropy(output, y, reduction="sum").double()])

    def test(self, batch_size: int) -> Iterator[Batch]:
        """Return this rank's share of the test images, in batches."""
        parts = (slice(at, at + batch_size) for at in range(0, len(self.y_test), batch_size))
        return ((x, y, len(y)) for x, y in feed(self.x_test, self.y_test, parts))
