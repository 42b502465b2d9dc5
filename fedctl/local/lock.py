"""The lock on a run folder: one run at a time.

The kernel releases it with the last process that holds it, so a killed run leaves none behind. The
file stays, with the number of the process that held it last.
"""

import contextlib
import fcntl
import os
from pathlib import Path

from fedctl.errors import UserError

NAME = ".lock"


class Lock:
    """A held lock; ranks that inherit `descriptor` hold it as well."""

    def __init__(self, folder: Path, what: str = "is being run") -> None:
        """Take the lock of this folder; raise a UserError if another process has it."""
        self.path = folder / NAME
        try:
            self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UserError(f"{folder}: cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self.descriptor, 32).decode("ascii", "replace").strip()
            os.close(self.descriptor)
            raise UserError(f"{folder}: {what} by process {holder or '?'}; wait for it") from None
        with contextlib.suppress(OSError):  # a full disk: then the lock is held without a number
            os.pwrite(self.descriptor, f"{os.getpid():<20}\n".encode(), 0)

    @property
    def lost(self) -> bool:
        """Whether its file is no longer in its place: the run folder was removed, or moved."""
        try:
            return not os.path.samestat(os.fstat(self.descriptor), self.path.stat())
        except OSError:
            return True

    def release(self) -> None:
        """Let others have it, once the ranks have ended too."""
        os.close(self.descriptor)


def holder(folder: Path) -> str | None:
    """Return the number of the process that holds this folder; None if nobody does."""
    try:
        descriptor = os.open(folder / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.read(descriptor, 32).decode("ascii", "replace").strip() or "?"
    finally:
        os.close(descriptor)
    return None
