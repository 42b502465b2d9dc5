"""Files of small data sets, for tests that load them."""

from pathlib import Path
from typing import Any

import numpy as np

from trainer.config.data import Data
from trainer.data.load import Dataset, load

Arrays = dict[str, Any]


def some(channels: int | None = None, classes: int = 10, side: int = 28) -> Arrays:
    """A well-formed file: 20 training and 10 test samples."""
    numbers = np.random.RandomState(0)
    shape = (side, side) if channels is None else (side, side, channels)
    return {
        "x_train": numbers.randint(0, 256, (20, *shape), dtype=np.uint8),
        "y_train": (np.arange(20) % classes).astype(np.uint8),
        "x_test": numbers.randint(0, 256, (10, *shape), dtype=np.uint8),
        "y_test": (np.arange(10) % classes).astype(np.uint8),
    }


def written(folder: Path, arrays: Arrays) -> str:
    path = folder / "some.npz"
    np.savez(path, **arrays)
    return str(path)


def loaded(folder: Path, arrays: Arrays, **settings: Any) -> Dataset:
    settings = {"name": "npz", **settings}
    return load(Data(path=written(folder, arrays), **settings), download=False)
