"""Unpacking of a run folder: from a tar stream into a new folder, complete and checked.

It knows nothing of clusters: the stream is bytes, as packer.py writes them.
"""

import contextlib
import functools
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from fedctl.cluster.transfer.packer import FIRST, LAST
from fedctl.errors import RunError, UserError

BLOCK_BYTES = 1 << 16
Progress = Callable[[int, int], None]  # bytes so far, total bytes


def refuse_full(folder: Path) -> None:
    """Raise if the folder is not empty, since it is never overwritten."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"--out {folder}: exists and is not empty; name another folder, or remove it"
        )


@contextlib.contextmanager
def arriving(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces `folder` on success, and is removed on failure."""
    refuse_full(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise RunError(f"--out {folder}: cannot be written: {error.strerror}") from None
    try:
        yield partial
        mask = os.umask(0o077)  # it can only be read by setting it
        os.umask(mask)
        partial.chmod(0o777 & ~mask)  # mkdtemp's is for the owner only
        refuse_full(folder)  # it may have been filled in the meantime
        try:
            partial.replace(folder)
        except OSError as error:  # a link to a folder, or the shell's working folder
            raise RunError(f"--out {folder}: cannot be replaced: {error.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def unpack(stream: Iterable[bytes], into: Path, progress: Progress) -> dict[str, int]:
    """Write the files of a stream and compare their checksums; return each file's size."""
    sums: dict[str, str] = {}
    sizes: dict[str, int] = {}
    promised: Any = None
    total = 0
    try:
        with tarfile.open(fileobj=_File(stream), mode="r|") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() else None
                if content is None:
                    raise RunError(f"the pod sent {member.name}, which is not a plain file")
                if member.name == FIRST:
                    total = json.load(content)
                elif member.name == LAST:
                    promised = json.load(content)
                else:
                    target = into / tarfile.data_filter(member, str(into)).name
                    before = sum(sizes.values())
                    report = functools.partial(_report, progress, before, total)
                    sums[member.name] = _write(content, target, report)
                    sizes[member.name] = member.size
    except tarfile.FilterError as error:
        raise RunError(f"the pod sent a file outside of the folder: {error}") from None
    except (tarfile.TarError, EOFError, json.JSONDecodeError) as error:
        raise RunError(f"the stream of files is damaged ({error}); try again") from None
    except OSError as error:
        raise RunError(f"{into.parent}: cannot be written: {error.strerror or error}") from None
    if promised is None:
        raise RunError("the connection ended before the last file; try again")
    damaged = [name for name in {*sums, *promised} if sums.get(name) != promised.get(name)]
    if damaged:
        raise RunError(f"{sorted(damaged)[0]}: damaged in transfer; try again")
    return sizes


def _report(progress: Progress, before: int, total: int, written: int) -> None:
    progress(before + written, total)


def _write(content: IO[bytes], target: Path, report: Callable[[int], None]) -> str:
    """Copy one file and return its checksum."""
    target.parent.mkdir(parents=True, exist_ok=True)
    sha256 = hashlib.sha256()
    with target.open("xb") as file:
        while block := content.read(BLOCK_BYTES):
            file.write(block)
            sha256.update(block)
            report(file.tell())
    return sha256.hexdigest()


class _File(io.RawIOBase):
    """A file object for tarfile, over chunks as they arrive."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or next(self._chunks, b"")
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count
