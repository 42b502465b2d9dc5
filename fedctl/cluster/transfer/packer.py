"""Script that runs in a pod for `fedctl fetch`: a run folder as a tar on stdout, with checksums.

Its text is the argument of `python -c` there, so it is short and needs only the standard library.
"""

import hashlib
import io
import json
import os
import sys
import tarfile
from collections.abc import Iterable
from typing import IO, Any

FIRST, LAST, NO_FOLDER = ".fedctl-bytes", ".fedctl-sha256", 44


class Hashed(io.RawIOBase):
    """A file that computes the checksum of what is read from it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.sha256 = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        block = self.file.read(size)
        self.sha256.update(block)
        return block


def files(folder: str, wanted: Iterable[str]) -> list[str]:
    """Return the files at these names and below them, without links."""
    found = set()
    for name in wanted:
        top = os.path.join(folder, name)
        found.add(top)
        found |= {os.path.join(base, name) for base, _, names in os.walk(top) for name in names}
    return sorted(path for path in found if os.path.isfile(path) and not os.path.islink(path))


def pack(folder: str, wanted: Iterable[str], stream: IO[bytes]) -> None:
    """Write the total size, then the files as they are now, then their checksums."""
    paths, sums = files(folder, wanted), {}
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        add(tar, FIRST, sum(os.stat(path).st_size for path in paths if os.path.exists(path)))
        for path in paths:
            try:
                file = open(path, "rb")  # noqa: SIM115
            except FileNotFoundError:
                continue  # an old checkpoint that was removed meanwhile
            with file:
                name = os.path.relpath(path, folder)
                member = tarfile.TarInfo(name)
                member.size = os.fstat(file.fileno()).st_size
                member.mtime = os.fstat(file.fileno()).st_mtime
                hashed = Hashed(file)
                tar.addfile(member, hashed)
                sums[name] = hashed.sha256.hexdigest()
        add(tar, LAST, sums)


def add(tar: tarfile.TarFile, name: str, content: Any) -> None:
    text = json.dumps(content).encode()
    member = tarfile.TarInfo(name)
    member.size = len(text)
    tar.addfile(member, io.BytesIO(text))


if __name__ == "__main__":
    if not os.path.isdir(sys.argv[1]):
        sys.exit(NO_FOLDER)
    pack(sys.argv[1], sys.argv[2:], sys.stdout.buffer)
