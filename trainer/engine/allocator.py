"""Owns a rank's memory: how much it holds, and that what it frees on a CPU stays with it."""

import ctypes

import psutil
import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT = 2**31 - 1  # bytes at the end of the heap that need not go back to the kernel
LARGEST = 2**30  # a block above this is mapped by itself, and goes back


def held_bytes(device: torch.device) -> int | None:
    """Return the memory that this rank holds on `device`; None if the system does not tell.

    Neither number waits for the device: PyTorch counts by itself what it has taken of a GPU.
    """
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    try:
        return psutil.Process().memory_info().rss
    except psutil.Error:
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
