"""The encoder of blocks of 8-bit floating-point numbers, which keep the digits of small values.

Where the bytes go is decided by a reduction, as for the encoders in encoders.py.
"""

import torch
from torch import Tensor

from trainer.exchange.encoders import Blocks, in_steps

LARGEST = 448  # of e4m3
LEAST = -6  # the exponent of the smallest normal number; below it numbers are equally far apart
DIGITS = 3  # bits of the mantissa


class Float8(Blocks):
    """Values in e4m3 (4 bits of exponent, 3 of mantissa) with one scale for each block.

    Symbols: s = the block's largest |x|, as bf16 rounded up; z = 448 x / s, so that the largest
    value takes the format's largest number; decoded: e4m3(z) s / 448. The error of a value is at
    most 1/16 of it, or s / 448 / 2^10 if that is more. So values far below the block's largest keep
    their leading digits, which integers lose; near the largest one 8-bit integers are closer.
    The format: Micikevicius et al., FP8 Formats for Deep Learning, 2022.

    unbiased: z is rounded to one of its two neighbours in e4m3, at random, so that the expectation
    is z. The error is up to twice as large.
    """

    def __init__(self, block: int, *, unbiased: bool = False) -> None:
        super().__init__(block, unbiased=unbiased)
        self.most = LARGEST

    def _packed(self, x: Tensor, scale: Tensor, draws: torch.Generator | None) -> Tensor:
        z = in_steps(x, scale, self.most)
        if draws is not None:
            z = rounded(z, torch.rand(z.shape, generator=draws).to(z.device))
        # beyond the largest number e4m3 has no infinity, only NaN; the clamp leaves a NaN as it is
        z = z.clamp_(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
        return z.view(torch.uint8)

    def _unpacked(self, packed: Tensor) -> Tensor:
        return packed.view(torch.float8_e4m3fn).float()


def rounded(z: Tensor, draws: Tensor) -> Tensor:
    """Round |z| <= 448 to neighbours in e4m3, at random by `draws`, uniform on [0, 1)."""
    exponent = torch.frexp(z).exponent - 1  # of the leading bit
    step = torch.ldexp(torch.ones_like(z), exponent.clamp(min=LEAST) - DIGITS)
    return (z / step).add_(draws).floor_().mul_(step)
