"""Reading of Keras-style .npz files.

Nothing is unpickled, so a file from an untrusted source cannot run code.
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
    """Read x_train, y_train, x_test and y_test from the file at `path`."""
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
    if not zipfile.is_zipfile(path):  # numpy would report a pickle, and how to load one
        raise ConfigError(
            "data.path", f"{path} is not an .npz file, or damaged; write it with numpy.savez"
        )
    try:
        # Opened here, because numpy does not close a file that it cannot read.
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
            f"{path} cannot be read as an .npz file of plain arrays ({_line(error)}); "
            "write it again with numpy.savez",
        ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
