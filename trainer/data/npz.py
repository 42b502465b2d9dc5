"""Reading of Keras-style .npz files.

Nothing is unpickled, so a file from an untrusted source cannot run code; and what it would unpack
to is known, and checked, before anything is.
"""

import math
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.config.errors import ConfigError
from trainer.data.arrays import (
    Arrays,
    check_images,
    check_labels,
    check_lengths,
    images,
    labels,
    refuse_too_large,
)

PARTS = ("train", "test")
NAMES = ("x_train", "y_train", "x_test", "y_test")
HEADERS: dict[tuple[int, int], Any] = {  # by version; later ones are for names of fields
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


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
        _check_headers(path)
        # Opened here, because numpy does not close a file that it cannot read.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return [file[name] for name in NAMES]
    except ConfigError:
        raise
    except Exception as error:  # which exception a damaged file raises depends on the damage
        raise ConfigError(
            "data.path",
            f"{path} cannot be read as an .npz file of plain arrays ({_line(error)}); "
            "write it again with numpy.savez",
        ) from error


def _check_headers(path: Path) -> None:
    """Check the arrays' types and sizes before any of them is unpacked."""
    lengths = {}
    with zipfile.ZipFile(path) as file:
        sizes = {info.filename: info.file_size for info in file.infolist()}
        if missing := [name for name in NAMES if f"{name}.npy" not in sizes]:
            raise ConfigError(
                "data.path", f"{path} lacks {', '.join(missing)}; it must hold {', '.join(NAMES)}"
            )
        for name in NAMES:
            with file.open(f"{name}.npy") as member:
                version = np.lib.format.read_magic(member)
                if version not in HEADERS:
                    raise ValueError(f"{name} has a header of version {version}")
                shape, _, dtype = HEADERS[version](member)
                follows = sizes[f"{name}.npy"] - member.tell()
            if dtype.hasobject:
                raise ValueError(f"Object arrays such as {name} are pickles, which can run code")
            check = check_images if name.startswith("x") else check_labels
            check(dtype, shape, name)
            if math.prod(shape) * dtype.itemsize != follows:
                raise ValueError(f"{name} has shape {shape}, but {follows} bytes")
            lengths[name] = shape[0]
        for part in PARTS:
            check_lengths(part, lengths[f"x_{part}"], lengths[f"y_{part}"])
        refuse_too_large(sum(sizes[f"{name}.npy"] for name in NAMES), str(path))


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r"<[\w.]+ object at 0x[0-9a-f]+>", "an expression", text)  # Python's, of a header
