"""What ended a rank, in one line for a person: a setting, the machine, another rank, or a bug.

Libraries raise the same RuntimeError for a full disk, for memory and for what is really wrong, so
their words are looked at. Only what nobody can explain is called a bug.
"""

import errno
import re
from pathlib import Path

import torch

from trainer.config.errors import ConfigError, EnvironmentFault
from trainer.exchange.group import first_sentence
from trainer.manifest import Damaged

FAILED, WRONG = 1, 2  # exit codes
FULL = {errno.ENOSPC, errno.EDQUOT}
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
# PyTorch's allocators on the CPU and on CUDA; oneDNN's
MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory|could not create a mem")
SIZE = re.compile(r"(?:allocate|allocate:) (\d+) bytes|allocate ([\d.]+ [GM]iB)")
LESS = "use a smaller schedule.batch_size or model, fewer ranks on this machine, or give it more"


def explain(error: BaseException, folder: Path) -> tuple[int, str] | None:
    """Return the exit code and the line for a failure; None for a bug.

    folder: of the run, to which a rank writes if the system does not name the file.
    """
    if isinstance(error, ConfigError):
        return WRONG, str(error)
    if isinstance(error, EnvironmentFault | Damaged):
        return FAILED, str(error)
    if isinstance(error, OSError):
        return FAILED, _system(error, folder)
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return FAILED, _memory(error)
    if isinstance(error, RuntimeError) and MEMORY.search(str(error)):
        return FAILED, _memory(error)
    return None


def _system(error: OSError, folder: Path) -> str:
    place = str(error.filename or "")
    if error.errno in FULL:
        where = _existing(Path(place)) if place else folder
        return f"the disk of {where} is full; make room on it, or use another folder"
    what = (error.strerror or first_sentence(error)).lower()
    if not place:
        return f"{what} ({type(error).__name__})"
    if error.errno == errno.ENOENT:
        return f"{place} does not exist any more; put it back"
    if error.errno in REFUSED:
        return f"{place} cannot be used: {what}; change its permissions, or use another folder"
    return f"{place} cannot be used: {what}"


def _existing(path: Path) -> Path:
    """Return the folder that a file was to be written to."""
    return path if path.is_dir() else path.parent


def _memory(error: BaseException) -> str:
    found = SIZE.search(str(error))
    size = ""
    if found:
        size = found[2] or f"{int(found[1]) / 2**30:.1f} GiB"
    return f"out of memory{f' ({size} more were needed)' if size else ''}; {LESS}"
