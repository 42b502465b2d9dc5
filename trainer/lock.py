"""The lock on a run folder: one run at a time.

The kernel releases it with the last process that holds it, so a killed run leaves none behind. The
file stays, with the process that held it last. Needs only the standard library, because fedctl
takes it too, and hands it on to the ranks that it starts.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path

NAME = ".lock"
PATIENCE = 20  # looks at who holds it, 0.05 s apart, until a process that lives is named
LOOKS = 20  # attempts at the lock, 0.01 s apart
LONGEST = 300  # bytes of what is in the file
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}  # of the file system


class Taken(Exception):
    """Another process has the folder: its number, and its machine if that is another."""


class Lock:
    """A held lock; processes that inherit `descriptor` hold it as well."""

    def __init__(self, folder: Path) -> None:
        """Take the lock of this folder; raise Taken if another process has it."""
        self.path = folder / NAME
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _take(self.descriptor)
        except BlockingIOError:
            who = _read(self.descriptor, folder)
            os.close(self.descriptor)
            raise Taken(who) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(self.descriptor)
                raise
        with contextlib.suppress(OSError):  # a full disk: then it is held without a name
            name = f"{os.getpid()} {socket.gethostname()}\n".encode()
            os.pwrite(self.descriptor, name, 0)
            os.ftruncate(self.descriptor, len(name))

    @property
    def lost(self) -> bool:
        """Whether its file is no longer in its place: the run folder was removed, or moved."""
        try:
            return not os.path.samestat(os.fstat(self.descriptor), self.path.stat())
        except OSError:
            return True

    def release(self) -> None:
        """Let others have it, once those that inherited it have ended too."""
        os.close(self.descriptor)


def holder(folder: Path) -> str | None:
    """Return who holds this folder; None if nobody does."""
    try:
        descriptor = os.open(folder / NAME, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(descriptor, folder)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return None


def _take(descriptor: int) -> None:
    """Lock the file; raise BlockingIOError if it is locked, and not only by a look at who has it.

    `holder` locks it for an instant to find out.
    """
    for _ in range(LOOKS):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(0.01)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _read(descriptor: int, folder: Path) -> str:
    """Return who holds the lock; it may have it for an instant before its name is in the file.

    If that process has ended, its ranks hold what they inherited.
    """
    here = socket.gethostname()
    for _ in range(PATIENCE):
        line = os.pread(descriptor, LONGEST, 0).decode("utf-8", "replace")
        number, _, host = line.partition("\n")[0].partition(" ")
        if number.isdecimal() and (host != here or _lives(int(number))):
            break
        time.sleep(0.05)
    else:
        if ranks := _living(folder):
            return ", ".join(f"process {process} (rank {rank})" for rank, process in ranks)
    return f"process {number or '?'}{'' if host in ('', here) else f' on {host}'}"


def _living(folder: Path) -> list[tuple[int, int]]:
    """Return the ranks that have not ended by their records, and their processes."""
    found = []
    for path in folder.glob("logs/rank-*.json"):
        try:
            record = json.loads(path.read_text())
            if record["exit"] is None and _lives(int(record["pid"])):
                found.append((int(record["rank"]), int(record["pid"])))
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue  # no record
    return sorted(found)


def _lives(number: int) -> bool:
    try:
        os.kill(number, 0)
    except OverflowError:
        return False
    except OSError as error:
        return error.errno == errno.EPERM
    return True
