"""Atomic writing of whole files: a reader sees the old content or the new, never a part of it.

Files that grow are written elsewhere. Only the standard library is needed, so fedctl uses it too.
"""

import contextlib
import os
import socket
from pathlib import Path


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
