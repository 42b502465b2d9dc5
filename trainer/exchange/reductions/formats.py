"""The reduction for each format that `codec.name` chooses."""

from dataclasses import dataclass

import torch

from trainer.config.codecs import BF16, FP8, FP32, FP64, Int4, Int8, LowRank, RandomK, Sign, Sparse
from trainer.exchange.encoders import Blocks, Plain
from trainer.exchange.float8 import Float8
from trainer.exchange.reductions.all_reduce import AllReduce
from trainer.exchange.reductions.low_rank import LowRank as LowRankReduction
from trainer.exchange.reductions.owners import Owners
from trainer.exchange.reductions.random_k import RandomK as RandomKReduction
from trainer.exchange.reductions.reduction import Reduction
from trainer.exchange.reductions.residuals import Residuals
from trainer.exchange.signs import Signs
from trainer.exchange.top_k import TopK
from trainer.layout import Layout

ONCE = 64  # values in a block of gradients, in formats whose own blocks are for something else


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


def float8(settings: FP8, subject: Subject) -> Owners:
    """Blocks of 8-bit floating-point numbers, as `blocks`."""
    code, once = (Float8(settings.block, unbiased=u) for u in (False, True))
    return Owners(code, once, sparse=subject.sparse)


def signs(settings: Sign, subject: Subject) -> Owners:
    """Blocks of signs, to their owners and back."""
    code = Signs(settings.block)
    return Owners(code, code, residuals=Residuals() if settings.error_feedback else None)


def top_k(settings: Sparse, subject: Subject) -> Owners:
    """A few large values, to their owners, which choose anew what goes back."""
    up, down = (TopK(settings.share, settings.block, levels=levels) for levels in (1, 2))
    kept = Residuals() if settings.error_feedback else None
    return Owners(up, up, down=down, residuals=kept)


def random_k(settings: RandomK, subject: Subject) -> RandomKReduction:
    """A few values, which a collective adds or owners do."""
    inner: Reduction = AllReduce(torch.float32)
    if settings.bits == 8:
        inner = Owners(Blocks(settings.block), Blocks(settings.block, unbiased=True))
    return RandomKReduction(inner, settings.share)


def low_rank(settings: LowRank, subject: Subject) -> LowRankReduction:
    """Factors of matrices."""
    return LowRankReduction(settings, subject.layout, subject.seed)


def gradients(settings: Int4 | LowRank, subject: Subject) -> Reduction:
    """Vectors that are used once, so that what is lost of them does not come back: int8."""
    if settings.bits == 32:
        return AllReduce(torch.float32)
    return Owners(Blocks(settings.block), Blocks(settings.block, unbiased=True))


def int8(settings: RandomK | Sign | Sparse, subject: Subject) -> Owners:
    """Vectors that are used once, whatever the settings."""
    return Owners(Blocks(ONCE), Blocks(ONCE, unbiased=True))
