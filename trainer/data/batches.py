"""Batches on their way to the model: augmentation, label noise, normalisation.

Which samples are in a batch is decided elsewhere. Every training step passes through here, so
everything works on whole batches, on the device that holds the data, without a loop over samples
and without waiting for the device.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

PADDING = 4  # pixels on each side, black, before a crop of the old size


class Normalise:
    """Map from (B, C, H, W) integers to (value / scale - mean) / std, as one mul and one add."""

    def __init__(
        self,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        scale: float,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        # In float64, so that folding the two divisions into one factor loses no precision:
        # (x / scale - mean) / std = x * 1 / (scale std) - mean / std.
        mean64 = torch.tensor(mean, dtype=torch.float64)[:, None, None]  # (C, 1, 1)
        std64 = torch.tensor(std, dtype=torch.float64)[:, None, None]
        self.factor = (1 / (scale * std64)).to(device, dtype)
        self.shift = (-mean64 / std64).to(device, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        return (x * self.factor).add_(self.shift)


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Crop each image of (B, C, H, W) at random out of its padded copy, and flip half of them."""
    count, channels, height, width = x.shape
    places = 2 * PADDING + 1
    # One draw decides flip, top and left: a generator on another device costs one copy, not three.
    draw = torch.randint(
        2 * places * places, (count, 1), generator=generator, device=generator.device
    ).to(x.device, non_blocking=True)
    flip, top, left = draw % 2, draw // 2 % places, draw // 2 // places  # each (B, 1)
    rows = top + torch.arange(height, device=x.device)  # (B, H)
    across = torch.arange(width, device=x.device)
    columns = left + torch.where(flip == 1, across.flip(0), across)  # (B, W)
    # One gather on flat images is six times as fast as indexing by rows and columns (on a CPU).
    place = rows[:, :, None] * (width + 2 * PADDING) + columns[:, None, :]  # (B, H, W)
    place = place.view(count, 1, -1).expand(-1, channels, -1)
    return pad(x, (PADDING,) * 4).flatten(2).gather(2, place).view(x.shape)


def noisy(y: Tensor, share: float, classes: int, generator: torch.Generator) -> Tensor:
    """Replace each label of (B,), with probability `share`, by another class at random.

    The draw is repeated at each visit, so the mean loss is that of the mixed target distribution:
    1 - p on the true class, p / (classes - 1) on each other class (Gu et al. 2023).
    """
    draw = torch.rand((2, len(y)), generator=generator, device=generator.device).to(y.device)
    shift = 1 + (draw[1] * (classes - 1)).to(y.dtype).clamp_(max=classes - 2)
    return torch.where(draw[0] < share, (y + shift) % classes, y)
