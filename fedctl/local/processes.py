"""Processes of a run on this machine: which belong to it, and which are alive.

The only module that reads the process table; launch.py starts and ends processes.
"""

from pathlib import Path

import psutil

from fedctl.report import runs


def children(pid: int) -> set[int]:
    """Return the processes that this one has started and that still exist."""
    try:
        return {child.pid for child in psutil.Process(pid).children()}
    except psutil.Error:
        return set()


def exists(pid: int) -> bool:
    """Return whether there is a process of this number."""
    return psutil.pid_exists(pid)


def is_rank_of(folder: Path, pid: int) -> bool:
    """Return whether a live process is a rank of this run: its command names the experiment."""
    try:
        return str((folder / runs.EXPERIMENT).resolve()) in psutil.Process(pid).cmdline()
    except psutil.Error:
        return False


def running_rank(folder: Path) -> int | None:
    """Return the number of a process that still runs a rank of this run, if there is one."""
    for rank in runs.ranks(folder):
        if rank.status == "running" and is_rank_of(folder, rank.pid):
            return rank.pid
    return None
