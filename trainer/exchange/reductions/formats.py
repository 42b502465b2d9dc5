"""The reduction for each format that `codec.name` chooses."""

from dataclasses import dataclass

import torch

from trainer.config.codecs import BF16, FP32, FP64, Int4, Int8, LowRank
from trainer.exchange.encoders import Blocks, Plain
from trainer.exchange.reductions.all_reduce import AllReduce
from trainer.exchange.reductions.low_rank import LowRank as LowRankReduction
from trainer.exchange.reductions.owners import Owners
from trainer.exchange.reductions.reduction import Reduction
from trainer.layout import Layout


@dataclass(frozen=True)
class Subject:
    """The vectors that a format is for; sparse: their values are mostly zeros."""

    layout: Layout
    dtype: torch.dtype
    seed: int
    sparse: bool = False


def plain_sum(settings: FP32 | FP64, subject: Subject) -> AllReduce:
    """Values that a collective adds."""
    kind = torch.float32 if settings.name == "fp32" else torch.float64
    return AllReduce(kind, sparse=subject.sparse)


def bf16(settings: BF16, subject: Subject) -> Owners:
    """Values of two bytes, to their owners and back."""
    code = Plain(torch.bfloat16, subject.dtype)
    return Owners(code, code, sparse=subject.sparse)


def blocks(settings: Int8 | Int4, subject: Subject) -> Owners:
    """Blocks of integers, to their owners and back; what is used only once is without bias."""
    code, once = (Blocks(settings.block, bits=settings.bits, unbiased=u) for u in (False, True))
    return Owners(code, once, sparse=subject.sparse)


def low_rank(settings: LowRank, subject: Subject) -> LowRankReduction:
    """Factors of matrices."""
    return LowRankReduction(settings, subject.layout, subject.seed)


def gradients(settings: Int4 | LowRank, subject: Subject) -> Reduction:
    """Vectors that are used once, so that what is lost of them does not come back: int8."""
    if settings.bits == 32:
        return AllReduce(torch.float32)
    return Owners(Blocks(settings.block), Blocks(settings.block, unbiased=True))
