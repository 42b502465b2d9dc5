"""The four arrays that every source of samples yields, and the checks that they must pass.

No other module decides whether a data set is well-formed. Layer 1.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.config.errors import ConfigError

CHANNELS = (1, 3, 4)


class Arrays(NamedTuple):
    """Images as (n, C, H, W) uint8 and labels as (n,) int64."""

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor


def images(array: npt.NDArray[Any], name: str) -> Tensor:
    """Convert N x H x W or N x H x W x C to (n, C, H, W), contiguous."""
    if array.dtype != np.uint8:
        raise ConfigError("data.path", f"{name} is {array.dtype}; it must be uint8, 0 to 255")
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[-1] not in CHANNELS:
        # Channels-first images would be taken for images with 32 channels: reject, do not train.
        raise ConfigError(
            "data.path",
            f"{name} has shape {array.shape}; it must be N x H x W, or N x H x W x C with "
            f"{CHANNELS[0]}, {CHANNELS[1]} or {CHANNELS[2]} channels last",
        )
    if array.size == 0:
        raise ConfigError("data.path", f"{name} is empty (shape {array.shape}); it needs samples")
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous()


def labels(array: npt.NDArray[Any], name: str) -> Tensor:
    """Convert N or N x 1 integers to (n,) int64."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ConfigError(
            "data.path",
            f"{name} is {array.dtype} of shape {array.shape}; it must be N integers (or N x 1)",
        )
    return torch.from_numpy(array.astype(np.int64))


def check(arrays: Arrays, classes: int, channels: int | None) -> None:
    """Check that the parts match, that labels are below `classes`, and the channels if known."""
    for part, x, y in (
        ("train", arrays.x_train, arrays.y_train),
        ("test", arrays.x_test, arrays.y_test),
    ):
        if len(x) != len(y):
            raise ConfigError(
                "data.path", f"x_{part} has {len(x)} samples but y_{part} {len(y)}; make them agree"
            )
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= classes:
            raise ConfigError(
                "data.path",
                f"y_{part} has labels from {low} to {high}; with {classes} classes they must be "
                f"0 to {classes - 1}",
            )
    train, test = tuple(arrays.x_train.shape[1:]), tuple(arrays.x_test.shape[1:])
    if train != test:
        raise ConfigError(
            "data.path",
            f"training images are {train} but test images {test} (channels, height, width); "
            "make them agree, or set data.resize if only the size differs",
        )
    if channels is not None and train[0] != channels:
        raise ConfigError(
            "data.path",
            f"images have {train[0]} channels, but this data set has {channels}; "
            "set data.name=npz for a file of your own",
        )
