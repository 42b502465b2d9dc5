"""Loading of the data set that data.name and data.path select, into memory or left in its files.

No other module knows the data sets' class counts and normalisations.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from trainer.config.data import Data
from trainer.config.errors import ConfigError
from trainer.config.paths import expanded
from trainer.data import images, npz
from trainer.data.arrays import Arrays, check, count_classes, refuse_too_large
from trainer.data.listing import listed
from trainer.data.stored import Decoder, Images, Stored


@dataclass(frozen=True)
class Dataset:
    """One data set, as stored: integers, not yet normalised."""

    x_train: Images  # (n, C, H, W) uint8
    y_train: Tensor  # (n,) int64
    x_test: Images
    y_test: Tensor
    classes: int
    mean: tuple[float, ...]  # per channel, in units of value / scale
    std: tuple[float, ...]
    scale: float  # the largest value: 255 for images, 16 for scikit-learn's digits
    augment: bool  # whether training images are cropped and flipped at random

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)"""
        channels, height, width = self.x_train.shape[1:]
        return channels, height, width


@dataclass(frozen=True)
class Custom:
    """Class count, normalisation and augmentation of a data set as usual in the literature."""

    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 255.0
    augment: bool = False


CUSTOMS = {
    "digits": Custom(10, (0.3053,), (0.3760,), scale=16.0),
    "mnist": Custom(10, (0.1307,), (0.3081,)),
    "emnist": Custom(47, (0.1307,), (0.3081,)),
    "emnist-digits": Custom(10, (0.1307,), (0.3081,)),
    "cifar10": Custom(10, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), augment=True),
    "cifar100": Custom(100, (0.50708, 0.48655, 0.44092), (0.26733, 0.25644, 0.27615), augment=True),
}

DIGITS_TEST_EVERY = 5  # 360 of 1,797


CPU = torch.device("cpu")

# ImageNet's number of classes is the number of folders.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET_SIDE = 224  # pixels, of a crop


def load(data: Data, *, download: bool) -> Dataset:
    """Load the data set that `data` names; `download`: whether this process may download it."""
    if data.name == "imagenet":
        return _imagenet(data)
    arrays = _resized(_read(data, download), data.resize)
    custom = CUSTOMS.get(data.name)
    classes = custom.classes if custom else count_classes(arrays.y_train, "y_train")
    check(arrays, classes, len(custom.mean) if custom else None)
    scale = custom.scale if custom else 255.0
    mean, std = (custom.mean, custom.std) if custom else _statistics(arrays.x_train, scale)
    channels = arrays.x_train.shape[1]
    return Dataset(
        *arrays,
        classes=classes,
        mean=_per_channel("mean", data.mean or mean, channels),
        std=_per_channel("std", data.std or std, channels),
        scale=scale,
        augment=bool(custom and custom.augment) if data.augment is None else data.augment,
    )


def _read(data: Data, download: bool) -> Arrays:
    path = expanded("data.path", data.path) if data.path else None
    if data.name == "digits":
        return _digits()
    if data.name == "folder":
        assert path is not None and data.resize is not None  # the schema requires both
        return images.folder(path, data.resize)
    if path is not None and (data.name == "npz" or path.suffix == ".npz"):
        return npz.read(path)
    return images.named(data.name, path, download=download)


def _imagenet(data: Data) -> Dataset:
    assert data.path is not None  # the schema requires it
    parts, decoder = listed(expanded("data.path", data.path)), Decoder(data.threads)
    train, test = (
        Stored(files, data.resize or IMAGENET_SIDE, decoder, torch.arange(len(files)), CPU)
        for files in parts
    )
    return Dataset(
        train,
        torch.from_numpy(parts[0].labels),
        test,
        torch.from_numpy(parts[1].labels),
        classes=len(parts[0].classes),
        mean=_per_channel("mean", data.mean or IMAGENET_MEAN, 3),
        std=_per_channel("std", data.std or IMAGENET_STD, 3),
        scale=255.0,
        augment=data.augment is not False,
    )


def _digits() -> Arrays:
    """Load scikit-learn's 8x8 digits: 1,437 for training and 360 for testing, for every seed."""
    from sklearn.datasets import load_digits  # takes a second, which other data sets need not pay

    digits = load_digits()
    y = torch.from_numpy(digits.target).to(torch.int64)
    x = torch.from_numpy(digits.images).to(torch.uint8)[:, None]
    # Stratified: shuffle, group by label, and test on every fifth.
    shuffled = torch.from_numpy(np.random.RandomState(0).permutation(len(y)))
    grouped = shuffled[torch.argsort(y[shuffled], stable=True)]
    for_test = torch.zeros(len(y), dtype=torch.bool)
    for_test[grouped[::DIGITS_TEST_EVERY]] = True
    return Arrays(x[~for_test], y[~for_test], x[for_test], y[for_test])


def _resized(arrays: Arrays, side: int | None) -> Arrays:
    if side is None:
        return arrays
    return arrays._replace(
        x_train=_square(arrays.x_train, side), x_test=_square(arrays.x_test, side)
    )


def _square(x: Tensor, side: int) -> Tensor:
    """Resize all images at once; on uint8 the result is bit-identical to Pillow's bilinear one."""
    if x.shape[2:] == (side, side):
        return x
    refuse_too_large(x.shape[0] * x.shape[1] * side**2, f"data.resize={side}")
    return interpolate(x, (side, side), mode="bilinear", antialias=True)


def _statistics(x: Tensor, scale: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compute each channel's mean and standard deviation exactly, from histograms, not floats."""
    values = torch.arange(256, dtype=torch.float64) / scale
    mean, std = [], []
    for channel in x.unbind(1):
        share = torch.bincount(channel.flatten(), minlength=256).to(torch.float64)
        share /= channel.numel()
        centre = (share * values).sum()
        mean.append(centre.item())
        spread = (share * (values - centre) ** 2).sum().sqrt().item()
        std.append(max(spread, 1 / scale))  # a constant channel must not divide by zero
    return tuple(mean), tuple(std)


def _per_channel(key: str, values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(values) != channels:
        raise ConfigError(
            f"data.{key}",
            f"has {len(values)} values, but the images have {channels} channels; give one for each",
        )
    return values
