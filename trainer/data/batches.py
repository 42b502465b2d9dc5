"""Owns the way from samples in memory to batches: order, augmentation, normalisation.

The only module on the way of every step: whole batches, where the data lives, without a loop over
samples or a wait for the device.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

ORDER = 100  # the purpose that keys this random stream; the engine's have other numbers
PADDING = 4  # pixels on each side, black, before a crop of the old size


class Normalise:
    """(B, C, H, W) integers -> float32 (value / scale - mean) / std, as one mul and one add."""

    def __init__(
        self,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        scale: float,
        device: torch.device | str = "cpu",
    ) -> None:
        # In float64 up to here, so that folding the two divisions into one factor costs no digits.
        mean64 = torch.tensor(mean, dtype=torch.float64)[:, None, None]  # (C, 1, 1)
        std64 = torch.tensor(std, dtype=torch.float64)[:, None, None]
        self.factor = (1 / (scale * std64)).to(device, torch.float32)
        self.shift = (-mean64 / std64).to(device, torch.float32)

    def __call__(self, x: Tensor) -> Tensor:
        return (x * self.factor).add_(self.shift)


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Crop each image of (B, C, H, W) out of its padded self at random, and flip half of them."""
    count, channels, height, width = x.shape
    places = 2 * PADDING + 1
    # One draw for all three choices: a generator on another device costs one small copy, not three.
    draw = torch.randint(
        2 * places * places, (count, 1), generator=generator, device=generator.device
    ).to(x.device, non_blocking=True)
    flip, top, left = draw % 2, draw // 2 % places, draw // 2 // places  # each (B, 1)
    rows = top + torch.arange(height, device=x.device)  # (B, H)
    across = torch.arange(width, device=x.device)
    columns = left + torch.where(flip == 1, across.flip(0), across)  # (B, W)
    # One gather on flat images: six times as fast as indexing by rows and columns (on a CPU).
    place = rows[:, :, None] * (width + 2 * PADDING) + columns[:, None, :]  # (B, H, W)
    place = place.view(count, 1, -1).expand(-1, channels, -1)
    return pad(x, (PADDING,) * 4).flatten(2).gather(2, place).view(x.shape)


def generator(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Randomness that depends on the whole key (seed, purpose, client, ...), nothing else."""
    # With its length, as numpy takes (1, 2) and (1, 2, 0) for the same key.
    (state,) = np.random.SeedSequence((*key, len(key))).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state) >> 1)  # 63 bits suit every device


def order(seed: int, client: int, epoch: int, n: int) -> Tensor:
    """How a client goes through its n samples in one pass: a permutation, (n,), on the CPU."""
    return torch.randperm(n, generator=generator(seed, ORDER, client, epoch))


@dataclass
class Position:
    """Where a client stands in its own data. Plain numbers: this is all a checkpoint needs."""

    epoch: int = 0  # passes completed
    offset: int = 0  # samples taken of the present pass


class Sampler:
    """Deals a client's samples in batches, pass after pass; the last of a pass may be smaller."""

    def __init__(
        self, indices: Tensor, *, batch_size: int, seed: int, client: int, reshuffle: bool = True
    ) -> None:
        """`indices` (n,): the client's samples in the data set, on the device that has the data.

        Without `reshuffle` every pass goes through them as they are, as in GWPF's loader:
        `partition` has put them in random order already.
        """
        assert len(indices) > 0 and batch_size > 0
        self.indices = indices
        self.batch_size = batch_size
        self.seed = seed
        self.client = client
        self.reshuffle = reshuffle
        self._epoch = -1
        self._pass = indices  # this epoch's order; drawn again after a restart, so never saved

    def next_batch(self, position: Position) -> Tensor:
        """Indices into the data set, (B,); moves `position` on."""
        if self.reshuffle and position.epoch != self._epoch:
            permutation = order(self.seed, self.client, position.epoch, len(self.indices))
            self._pass = self.indices[permutation.to(self.indices.device)]
            self._epoch = position.epoch
        batch = self._pass[position.offset : position.offset + self.batch_size]
        position.offset += self.batch_size
        if position.offset >= len(self.indices):
            position.epoch += 1
            position.offset = 0
        return batch
