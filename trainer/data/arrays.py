"""The four arrays that every source of samples yields, and the checks that they must pass.

No other module decides whether a data set is well-formed. Layer 1.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.config.errors import ConfigError
from trainer.data import memory

CHANNELS = (1, 3, 4)


class Arrays(NamedTuple):
    """Images as (n, C, H, W) uint8 and labels as (n,) int64."""

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor


def check_images(dtype: Any, shape: tuple[int, ...], name: str) -> None:
    """Check what an array of images is, of which only the header may have been read."""
    if dtype != np.uint8:
        raise ConfigError("data.path", f"{name} is {dtype}; it must be uint8, 0 to 255")
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[-1] not in CHANNELS):
        # Channels-first images would be taken for images with 32 channels: reject, do not train.
        raise ConfigError(
            "data.path",
            f"{name} has shape {shape}; it must be N x H x W, or N x H x W x C with "
            f"{CHANNELS[0]}, {CHANNELS[1]} or {CHANNELS[2]} channels last",
        )
    _refuse_empty(shape, name)


def check_labels(dtype: Any, shape: tuple[int, ...], name: str) -> None:
    """Check what an array of labels is, of which only the header may have been read."""
    if len(shape) not in (1, 2) or shape[1:] not in ((), (1,)) or dtype.kind not in "iu":
        raise ConfigError(
            "data.path", f"{name} is {dtype} of shape {shape}; it must be N integers (or N x 1)"
        )
    _refuse_empty(shape, name)


def check_lengths(part: str, images: int, labels: int) -> None:
    """Check that a part has as many labels as images."""
    if images != labels:
        raise ConfigError(
            "data.path", f"x_{part} has {images} samples but y_{part} {labels}; make them agree"
        )


def _refuse_empty(shape: tuple[int, ...], name: str) -> None:
    if 0 in shape:
        raise ConfigError("data.path", f"{name} is empty (shape {shape}); it needs samples")


def refuse_too_large(size: int, what: str) -> None:
    """Raise if images take more bytes than this machine has, before anything is allocated."""
    memory.refuse_too_large(
        size,
        what,
        "use fewer or smaller images, or data.name=imagenet, which leaves them in their files",
    )


def images(array: npt.NDArray[Any], name: str) -> Tensor:
    """Convert N x H x W or N x H x W x C to (n, C, H, W), contiguous."""
    check_images(array.dtype, array.shape, name)
    if array.ndim == 3:
        array = array[..., None]
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous()


def labels(array: npt.NDArray[Any], name: str) -> Tensor:
    """Convert N or N x 1 integers to (n,) int64."""
    check_labels(array.dtype, array.shape, name)
    if (high := int(array.max())) > np.iinfo(np.int64).max:
        raise ConfigError("data.path", f"{name} has label {high}; number the classes from 0")
    return torch.from_numpy(array.reshape(-1).astype(np.int64))


def count_classes(y: Tensor, name: str) -> int:
    """Return the number of classes in own data, whose labels must be 0, 1, 2 ... without gaps.

    A label that no sample has would be an output of the model that is never right, or, if it is far
    above the others, more outputs than memory.
    """
    present = torch.unique(y)
    low, high, count = int(present[0]), int(present[-1]), len(present)
    if low == 0 and high == count - 1:
        return count
    if low < 0:
        problem = f"{name} has labels from {low} to {high}; number the classes from 0"
    elif high - low == count - 1:
        problem = (
            f"{name} has labels from {low} to {high}, so no sample is of class 0; subtract {low} "
            "from y_train and y_test"
        )
    else:
        row, missing = int((y == high).nonzero()[0]), _first_missing(present)
        problem = (
            f"{name} has label {high} (of sample {row}), but {count - 1} other classes, and no "
            f"sample with label {missing}; number the classes 0 to {count - 1}"
        )
    raise ConfigError("data.path", problem)


def _first_missing(present: Tensor) -> int:
    return int((present != torch.arange(len(present))).nonzero()[0])


def check(arrays: Arrays, classes: int, channels: int | None) -> None:
    """Check that the parts match, that labels are below `classes`, and the channels if known."""
    for part, x, y in (
        ("train", arrays.x_train, arrays.y_train),
        ("test", arrays.x_test, arrays.y_test),
    ):
        check_lengths(part, len(x), len(y))
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
