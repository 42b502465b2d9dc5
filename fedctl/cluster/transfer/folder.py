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
SLACK_BYTES = 1 << 28  # beyond what was announced: logs and metrics of a run grow while it is sent
MOST_FILES = 200_000
MOST_HEADER_BYTES = 1 << 16  # of an extended header: a path, and the time of a change
MOST_LIST_BYTES = 1 << 26  # of all names and checksums
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
        partial.chmod(0o777 & ~_umask())  # as any new folder; mkdtemp's is for the owner only
        refuse_full(folder)  # it may have been filled in the meantime
        try:
            partial.replace(folder)
        except OSError as error:  # a link to a folder, or the shell's working folder
            raise RunError(f"--out {folder}: cannot be replaced: {error.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class _Header(tarfile.TarInfo):
    """The header of a member; tarfile reads the contents of extended ones into memory at once."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: Any, errors: Any) -> "_Header":
        found = super().frombuf(buf, encoding, errors)
        if found.type not in tarfile.REGULAR_TYPES and found.size > MOST_HEADER_BYTES:
            raise RunError(
                f"the pod sent a header of {found.size:,} bytes; is the image the run's?"
            )
        return found


def _umask() -> int:
    """Return the process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def unpack(stream: Iterable[bytes], into: Path, progress: Progress) -> dict[str, int]:
    """Write the files of a stream and compare their checksums; return each file's size.

    What the pod sends is not trusted: files may not lie outside of the folder, be links or devices,
    be more than MOST_FILES, or add up to more than it has announced and the disk has room for.
    """
    sums: dict[str, str] = {}
    sizes: dict[str, int] = {}
    promised: Any = None
    total = before = 0
    try:
        with tarfile.open(fileobj=_File(stream), mode="r|", tarinfo=_Header) as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() else None
                if content is None or member.issparse():
                    raise RunError(f"the pod sent {member.name}, which is not a plain file")
                if member.name == FIRST:
                    total = _announced(_json(member, content), into)
                elif member.name == LAST:
                    promised = _json(member, content)
                else:
                    _check_room(before + member.size, total, len(sizes))
                    target = into / tarfile.data_filter(member, str(into)).name
                    report = functools.partial(_report, progress, before, total)
                    sums[member.name] = _write(content, target, report)
                    sizes[member.name] = member.size
                    before += member.size
    except tarfile.FilterError as error:
        raise RunError(f"the pod sent a file outside of the folder: {error}") from None
    except (tarfile.TarError, EOFError, ValueError, RecursionError) as error:
        raise RunError(f"the stream of files is damaged ({error}); try again") from None
    except OSError as error:
        raise RunError(f"{into.parent}: cannot be written: {error.strerror or error}") from None
    if promised is None:
        raise RunError("the connection ended before the last file; try again")
    if not isinstance(promised, dict):
        raise RunError("the stream of files is damaged (no checksums); try again")
    damaged = [name for name in {*sums, *promised} if sums.get(name) != promised.get(name)]
    if damaged:
        raise RunError(f"{sorted(damaged)[0]}: damaged in transfer; try again")
    return sizes


def _json(member: tarfile.TarInfo, content: IO[bytes]) -> Any:
    if member.size > MOST_LIST_BYTES:
        raise RunError(f"the pod sent a list of {member.size:,} bytes; is the image the run's?")
    return json.load(content)


def _announced(total: Any, into: Path) -> int:
    """Return the size that the pod announces; raise if the disk has no room for it."""
    if not isinstance(total, int) or isinstance(total, bool) or total < 0:
        raise ValueError("its size is no number")
    free = shutil.disk_usage(into).free
    if total > free:
        raise RunError(
            f"{into.parent}: has room for {free / 1e6:,.0f} MB, but the run folder has "
            f"{total / 1e6:,.0f} MB; free some, copy elsewhere with --out, or less with --what"
        )
    return total


def _check_room(so_far: int, total: int, files: int) -> None:
    """Raise if the pod sends more than it announced, but for files that a running run extends."""
    if so_far > 2 * total + SLACK_BYTES:
        raise RunError(f"the pod sent more than the {total / 1e6:,.0f} MB that it announced")
    if files >= MOST_FILES:
        raise RunError(f"the pod sent more than {MOST_FILES:,} files; copy less with --what")


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
