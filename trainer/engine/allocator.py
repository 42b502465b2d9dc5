"""Owns a rank's memory: how much it holds, and that what it frees on a CPU stays with it."""

import ctypes
import os
from pathlib import Path

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT = 2**31 - 1  # bytes at the end of the heap that need not go back to the kernel
LARGEST = 2**30  # a block above this is mapped by itself, and goes back
STATM = Path("/proc/self/statm")  # pages of this process: in all, resident, shared, ...


def held_bytes(device: torch.device) -> int | None:
    """Memory that this rank holds on `device`; None where the system does not say.

    Neither number waits for the device: PyTorch counts by itself what it has taken of a GPU.
    """
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # macOS, Windows
        return None


def keep_freed_memory() -> bool:
    """Ask glibc not to give large blocks back at each step; False where the C library can't.

    The next step asks for blocks of the same sizes. Given back, each of their pages would be
    taken and zeroed anew, which costs more than small networks compute.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    return all([mallopt(MMAP_THRESHOLD, LARGEST), mallopt(TRIM_THRESHOLD, KEPT)])
