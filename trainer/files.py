"""Atomic writing of whole files: a reader sees the old content or the new, never a part of it.

Needs the standard library only, so that fedctl can use it too. Files that grow are not its concern.
"""

import contextlib
import os
from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace the content of `path`; if that fails, leave what was there and nothing else."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
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
