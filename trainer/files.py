"""What is written for others to read: whole files, of which nobody sees a part, and valid JSON.

It also opens what others wrote, if it is a file. Files that grow are written elsewhere. Only the
standard library is needed, so fedctl uses it too.
"""

import contextlib
import errno
import json
import math
import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

FILES = {".lock", ".json", ".jsonl", ".log", ".safetensors"}  # endings, or names, of no folder
NO_SYNC = {errno.EBADF, errno.EINVAL, errno.ENOTSUP}  # of a folder, where the file system has none

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def not_regular(path: str | Path) -> str:
    """Return why a path cannot be read as a file: "is a pipe; ..."; empty if it is one, or none."""
    try:
        return _not_regular(os.stat(path).st_mode)
    except (OSError, ValueError):  # opening it says what is wrong
        return ""


def _not_regular(mode: int) -> str:
    kind = KINDS.get(stat.S_IFMT(mode), "")
    return kind and f"is {kind}; name a regular file"


def open_regular(path: str | Path) -> BinaryIO:
    """Open a file to read it; raise an OSError for a pipe or a device, which may have no end."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NONBLOCK)  # else it waits for a pipe's writer

    file = open(path, "rb", opener=opener)  # noqa: SIM115  # the caller closes it
    if problem := _not_regular(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, problem, str(path))
    return file


def partial_of(path: Path) -> Path:
    """Return the name under which this process writes a file that then takes the place of `path`.

    It has the host's name: pods may share the folder, and their processes often have the same id.
    """
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.partial")


def write_atomically(path: Path, content: str | bytes, *, lasting: bool = True) -> None:
    """Replace the content of `path`; if that fails, leave what was there and nothing else.

    lasting: have also its name on the disk when this returns, which takes some milliseconds.
    """
    partial = partial_of(path)
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
    if lasting:
        sync_folder(path.parent)


def not_a_file(folder: Path) -> Path | None:
    """Return something in a run folder that stands where a file must be; None: there is nothing.

    Whoever opens a pipe waits until another process does, without end and deaf to signals.
    """
    for path in sorted([*folder.glob("*"), *folder.glob("logs/*")]):
        try:
            mode = path.stat().st_mode
        except OSError:  # removed in the meantime, or a link that leads nowhere
            continue
        named = path.suffix in FILES or path.name in FILES
        if not stat.S_ISREG(mode) and (named or not stat.S_ISDIR(mode)):
            return path
    return None


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk: after a rename, say, or a new file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
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
