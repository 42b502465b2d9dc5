"""Owns the reading of Keras-style .npz files.

The only module that opens them; never unpickles, so a file from a stranger can't run code.
"""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.config.errors import ConfigError
from trainer.data.arrays import Arrays, images, labels

NAMES = ("x_train", "y_train", "x_test", "y_test")


def read(path: Path) -> Arrays:
    """x_train, y_train, x_test and y_test of the file at `path`."""
    x_train, y_train, x_test, y_test = _members(path)
    return Arrays(
        images(x_train, "x_train"),
        labels(y_train, "y_train"),
        images(x_test, "x_test"),
        labels(y_test, "y_test"),
    )


def _members(path: Path) -> list[npt.NDArray[Any]]:
    if not path.is_file():
        raise ConfigError("data.path", f"{path} is not a file; give the path of an .npz file")
    if not zipfile.is_zipfile(path):  # numpy would take it for a pickle, and say how to load that
        raise ConfigError(
            "data.path", f"{path} is not an .npz file, or damaged; write it with numpy.savez"
        )
    try:
        # Opened here, as numpy leaves a file that it can't read open.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            if missing := [name for name in NAMES if name not in file]:
                raise ConfigError(
                    "data.path",
                    f"{path} lacks {', '.join(missing)}; it must hold {', '.join(NAMES)}",
                )
            return [file[name] for name in NAMES]
    except ConfigError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigError(
            "data.path",
            f"{path} can't be read as an .npz file of plain arrays ({_line(error)}); "
            "write it again with numpy.savez",
        ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
