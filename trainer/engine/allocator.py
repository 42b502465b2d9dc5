"""Memory of a rank: how much it holds, and how freed memory on a CPU stays with the process.

It changes no result, only the time of a step.
"""

import ctypes

import psutil
import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT = 2**31 - 1  # bytes at the end of the heap that need not go back to the kernel
LARGEST = 2**30  # bytes; a larger block is mapped separately, and goes back


def held_bytes(device: torch.device) -> int | None:
    """Return the bytes that this rank holds on `device`; None if the system does not report them.

    Neither number waits for the device: PyTorch keeps count of the memory that it has reserved.
    """
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    try:
        return psutil.Process().memory_info().rss
    except psutil.Error:
        return None


def keep_freed_memory() -> bool:
    """Stop glibc from returning large blocks to the kernel; return False if it is not glibc.

    The next step requests blocks of the same sizes. If they had been returned, the kernel would
    have to map and zero each page again, which takes longer than small networks compute.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    return all([mallopt(MMAP_THRESHOLD, LARGEST), mallopt(TRIM_THRESHOLD, KEPT)])
