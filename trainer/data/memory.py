"""The memory that a data set may take: this machine's, for all ranks on it.

No other module decides what is too large. Layer 1.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from trainer.config.errors import ConfigError

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def ranks_here() -> int:
    """Return the number of ranks on this machine, or in this pod."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def refuse_too_large(size: int, what: str, remedy: str) -> None:
    """Raise if `what` takes more bytes than there are, before anything is allocated.

    size: of one rank; all ranks of this machine take as much at the same time.
    """
    ranks, memory = ranks_here(), min([psutil.virtual_memory().total, *_limits()])
    if size * ranks > memory:
        of_each = f" for each of {ranks} ranks" if ranks > 1 else ""
        raise ConfigError(
            "data.path",
            f"{what} would take {size / 1e9:,.1f} GB{of_each} of this machine's "
            f"{memory / 1e9:,.1f} GB; {remedy}",
        )


def _limits() -> Iterator[int]:
    """Yield what the control groups above this process grant, in either version."""
    lines = []
    with suppress(OSError):  # not on Linux
        lines = OWN_CGROUP.read_text().splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = CGROUPS / "memory" if controllers else CGROUPS
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        place = Path(path.lstrip("/"))
        for folder in (place, *place.parents):
            with suppress(OSError, ValueError):  # of another namespace, or "max"
                yield int((root / folder / name).read_text())
