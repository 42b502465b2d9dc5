"""What is written for others to read: whole files, of which nobody sees a part, and valid JSON.

Files that grow are written elsewhere. Only the standard library is needed, so fedctl uses it too.
"""

import contextlib
import json
import math
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace the content of `path`; if that fails, leave what was there and nothing else."""
    # with the host's name: pods may share the folder, and their processes often have the same id
    partial = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk: after a rename, say, or a new file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def as_json(value: Any, **layout: Any) -> str:
    """Return JSON, which has neither NaN nor infinity: a number that is not finite is null.

    layout: other arguments of json.dumps, such as `indent`.
    """
    try:
        return json.dumps(value, allow_nan=False, **layout)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False, **layout)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(own) for own in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
