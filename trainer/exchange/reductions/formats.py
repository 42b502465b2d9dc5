"""The reduction for each format that `codec.name` chooses."""

import torch

from trainer.config.communication import BF16, FP32, FP64, Int8
from trainer.exchange.encoders import Blocks, Plain
from trainer.exchange.reductions.all_reduce import AllReduce
from trainer.exchange.reductions.owners import Owners


def plain_sum(settings: FP32 | FP64, dtype: torch.dtype, *, sparse: bool) -> AllReduce:
    """Values that a collective adds. dtype: the model's; sparse: messages are mostly zeros."""
    kind = torch.float32 if settings.name == "fp32" else torch.float64
    return AllReduce(kind, sparse=sparse)


def bf16(settings: BF16, dtype: torch.dtype, *, sparse: bool) -> Owners:
    """Values of two bytes, to their owners and back."""
    code = Plain(torch.bfloat16, dtype)
    return Owners(code, code, sparse=sparse)


def int8(settings: Int8, dtype: torch.dtype, *, sparse: bool) -> Owners:
    """8-bit blocks, to their owners and back; what is used only once is rounded without bias."""
    return Owners(Blocks(settings.block), Blocks(settings.block, unbiased=True), sparse=sparse)
