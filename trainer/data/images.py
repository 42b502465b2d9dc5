"""The sources of samples that need torchvision: its own data sets, and folders of image files.

No other module downloads data. Images that stay in their files are in trainer/data/stored.py.
"""

import os
import pickle
import socket
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.config.errors import ConfigError
from trainer.data.arrays import Arrays, images, labels, refuse_too_large
from trainer.data.torchvision_cpu import torchvision
from trainer.files import open_regular

CLASSES = {
    "mnist": "MNIST",
    "emnist": "EMNIST",
    "emnist-digits": "EMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}
OPTIONS = {"emnist": {"split": "balanced"}, "emnist-digits": {"split": "digits"}}

STALLED_SECONDS = 60.0  # without it, a firewall that drops packets would block a job forever

# The exceptions that a refused connection, a broken download or a damaged file can raise.
_FAILURES = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    AssertionError,
    KeyError,
    EOFError,
    HTTPException,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    pickle.UnpicklingError,
)


def cache() -> Path:
    """Return the folder for downloads, used if data.path is empty."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "fedctl" / "data"


def named(name: str, root: Path | None, *, download: bool) -> Arrays:
    """Load one of torchvision's data sets from `root`; `download`: fetch it first if absent."""
    datasets = torchvision().datasets
    try:
        root = root or cache()
        if root.is_file():
            raise ConfigError("data.path", f"{root} is neither an .npz file nor a folder")
        build = getattr(datasets, CLASSES[name])
        with _give_up_after(STALLED_SECONDS):
            parts = [
                build(root, train=train, download=download, **OPTIONS.get(name, {}))
                for train in (True, False)
            ]
    except ConfigError:
        raise
    except _FAILURES as error:
        raise ConfigError("data.path", _no_data(name, root, download, error)) from error
    train, test = parts
    return Arrays(
        images(np.asarray(train.data), "x_train"),
        labels(np.asarray(train.targets), "y_train"),
        images(np.asarray(test.data), "x_test"),
        labels(np.asarray(test.targets), "y_test"),
    )


def _no_data(name: str, root: Path | None, download: bool, error: BaseException) -> str:
    what = "neither found nor downloaded to" if download else "not found, or damaged, under"
    why = " ".join(str(error).split()) or type(error).__name__
    return (
        f"{name} was {what} {root or 'the cache folder'} ({why[:300]}); pass data.path: "
        "an .npz file with x_train, y_train, x_test, y_test, or a folder that holds the data set"
    )


@contextmanager
def _give_up_after(seconds: float) -> Iterator[None]:
    """Limit the waiting time of connections, since torchvision opens its own without a limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def folder(path: Path, side: int) -> Arrays:
    """Load path/train and path/test (or val), one folder per class; images as RGB, side x side."""
    train = _image_folder(path / "train")
    test = _image_folder(path / "test" if (path / "test").is_dir() else path / "val")
    if unknown := sorted(set(test.classes) - set(train.classes)):
        raise ConfigError(
            "data.path",
            f"{test.root} has classes that {train.root} lacks: {', '.join(unknown[:5])}; "
            "give both the same sub-folders",
        )
    # By name: a class without test images would shift the numbers of all classes after it.
    number = [train.class_to_idx[name] for name in test.classes]
    return Arrays(
        _decoded(train.samples, side),
        torch.tensor(train.targets, dtype=torch.int64),
        _decoded(test.samples, side),
        torch.tensor([number[target] for target in test.targets], dtype=torch.int64),
    )


def _image_folder(path: Path) -> Any:
    try:
        return torchvision().datasets.ImageFolder(path)
    except OSError as error:
        raise ConfigError(
            "data.path",
            f"{path} is not a folder with a sub-folder of images for each class ({error}); "
            "data.path needs train/ and test/ (or val/) with this layout",
        ) from error


def _decoded(samples: list[tuple[str, int]], side: int) -> Tensor:
    refuse_too_large(len(samples) * 3 * side**2, f"{len(samples):,} images")
    pixels = torch.empty(len(samples), 3, side, side, dtype=torch.uint8)
    for row, (path, _) in zip(pixels, samples, strict=True):
        row.copy_(_image(path, side))
    return pixels


def _image(path: str, side: int) -> Tensor:
    from PIL import Image  # comes with torchvision; only this source needs it

    try:
        with open_regular(path) as opened, Image.open(opened) as file:
            small = file.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    except Exception as error:  # which exception a damaged file raises depends on its format
        why = " ".join(str(error).split())[-200:] or type(error).__name__
        raise ConfigError(
            "data.path", f"{path} is not a readable image ({why}); replace or remove it"
        ) from error
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)
