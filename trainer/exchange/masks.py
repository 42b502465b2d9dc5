"""What is done to long vectors piece by piece, and by masks, near the speed of memory.

On a CPU torch branches on each value of a bool mask, and no processor foresees a random one: so
torch.where, masked_select and masked_scatter_ take several times as long as a copy. What is here
has no branches, and gives the same bits.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

CHUNK = 1 << 16  # values: 256 KiB of float32, so that a few temporaries stay in the cache
LARGE_CHUNK = 1 << 26  # values: elsewhere than on a CPU, which takes a while to start anything
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes


def chunks(size: int, device: torch.device, width: int = 1) -> Iterator[slice]:
    """Cut a vector into pieces, each of which goes through several operations while in the cache.

    So no temporary is as long as the model either. width: values in one of its `size` items. A
    vector of none is one piece of none.
    """
    step = max(1, (CHUNK if device.type == "cpu" else LARGE_CHUNK) // width)
    return (slice(start, min(start + step, size)) for start in range(0, max(1, size), step))


def numbers(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 1 where the mask is true, else 0; torch converts int8 faster than bool."""
    return mask.view(torch.int8).to(dtype)


def indices(mask: Tensor) -> Tensor:
    """Return where the mask (n,) is true, sorted, int64."""
    if mask.device.type == "cpu":  # NumPy does it without branches
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero()[:, 0]


def choose(mask: Tensor, one: Tensor, other: Tensor, out: Tensor) -> None:
    """Write `one` where the mask is true, else `other`, to `out`, which may be one of them."""
    kind = INTEGERS[out.element_size()]
    a, b = one.view(kind), other.view(kind)
    taken = (a ^ b).bitwise_and_(numbers(mask, kind).neg_())  # -1 has all bits
    torch.bitwise_xor(taken, b, out=out.view(kind))


def blank(vector: Tensor, mask: Tensor, out: Tensor) -> None:
    """Write `vector` (P,) to `out`, with zeros where the mask is false."""
    for part in chunks(len(vector), vector.device):
        torch.mul(vector[part], numbers(mask[part], vector.dtype), out=out[part])


def gather(vector: Tensor, mask: Tensor, out: Tensor) -> None:
    """Copy the selected values of `vector` (P,) into `out`."""
    done = 0
    for part in chunks(len(vector), vector.device):
        index = indices(mask[part])
        torch.index_select(vector[part], 0, index, out=out[done : done + len(index)])
        done += len(index)


def scatter(values: Tensor, mask: Tensor, out: Tensor) -> None:
    """Put values at the selected places of `out` (P,), and zeros elsewhere: undo `gather`."""
    done = 0
    for part in chunks(len(out), out.device):
        index = indices(mask[part])
        out[part].zero_().scatter_(0, index, values[done : done + len(index)])
        done += len(index)
