"""The controller of a byte budget: which matrices get more columns in their low-rank factors.

Symbols: r_i = rank of matrix i; s_ij = moving average of the squared length of its mean update
along direction j, the largest first; c_i = bytes of a column of its two factors. A column is worth
s_ij / c_i, the movement that it carries per byte, and the budget buys those worth most. Of the
first direction that is not sent nothing is known, so it is taken to fall like the one before,
s_ir (s_ir / s_i,r-1), and halved, so that ranks do not go to and fro. Each matrix keeps a column,
and gets at most one more in a decision.

All of this comes from what every rank has received, so all decide alike and send nothing for it.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import Any

import torch
from torch import Tensor

from trainer.config.codecs import LowRank as Settings
from trainer.config.errors import ConfigError
from trainer.exchange.reductions.factors import Table

log = logging.getLogger("fedctl")

PERIOD = 10  # rounds between two decisions
MEMORY = 0.9  # weight of the past in the moving averages


class Budget:
    """The ranks of a model's matrices within the bytes of a message."""

    def __init__(self, settings: Settings, tables: Sequence[Table], values: int) -> None:
        """tables: those of the whole model, whose fp32 values are `values` of them."""
        assert settings.budget is not None
        self.settings, self.most = settings, settings.budget.of(4 * values)
        self.whole = tables
        self.matrices = [table for table in tables if table.full_rank]
        self.rest = sum(
            self._coded(table.n * table.columns, settings.bits)
            for table in tables
            if not table.rank
        )
        self.ranks = self._at_start()
        self.lengths: list[Tensor] = []  # s of each matrix, (r,) float64
        self.seen = 0  # rounds

    def _coded(self, count: int, bits: int) -> float:
        """Return the bytes of a vector in blocks, each with a scale but for fp32."""
        scales = 0 if bits == 32 else 2 * ceil(count / self.settings.block)
        return count * bits / 8 + scales

    def size(self, ranks: Sequence[int]) -> int:
        """Return the bytes of a client's message."""
        bits = self.settings.bits
        return ceil(self.rest) + sum(
            ceil(self._coded(rank * matrix.n, bits))
            + ceil(self._coded(rank * matrix.columns, bits))
            for rank, matrix in zip(ranks, self.matrices, strict=True)
        )

    def _at_start(self) -> list[int]:
        """Return the largest rank up to the setting's that fits, the same for all."""
        for rank in range(self.settings.rank, 0, -1):
            ranks = [min(rank, matrix.most) for matrix in self.matrices]
            if self.size(ranks) <= self.most:
                return ranks
        least = self.size([1] * len(self.matrices))
        raise ConfigError(
            "codec.budget",
            f"{self.most:,} bytes are too few for this model: with one column for each matrix a "
            f"message takes {least:,}; allow that many",
        )

    def learn(self, factors: Sequence[Sequence[Tensor]]) -> None:
        """Learn the second factors (m, r) of a round's means, of each vector and matrix."""
        found = [
            sum(torch.linalg.svdvals(factor.double()) ** 2 for factor in own)
            for own in zip(*factors, strict=True)
        ]
        self.lengths = self.lengths or [own.new_zeros(0) for own in found]
        for at, (old, new) in enumerate(zip(self.lengths, found, strict=True)):
            known = old[: self.ranks[at]]
            lengths = new.new_zeros(self.ranks[at])
            lengths[: len(known)] = known  # also of directions that this round had no rows for
            lengths[: len(new)] = new[: self.ranks[at]]  # what is new begins as it is
            both = min(len(known), len(new))
            lengths[:both] = MEMORY * known[:both] + (1 - MEMORY) * new[:both]
            self.lengths[at] = lengths
        self.seen += 1

    def decided(self) -> list[int]:
        """Return the ranks that carry most for the bytes."""
        best = [1] * len(self.matrices)
        for at, rank in self._by_worth():
            grown = [*best[:at], rank, *best[at + 1 :]]
            if best[at] == rank - 1 and self.size(grown) <= self.most:
                best = grown
        return best

    def _by_worth(self) -> list[tuple[int, int]]:
        """Return (matrix, rank) of every column after the first, those worth most first."""
        columns = []
        for at, (matrix, found) in enumerate(zip(self.matrices, self.lengths, strict=True)):
            known = found.tolist()
            if len(known) < matrix.most:
                ratio = known[-1] / known[-2] if len(known) > 1 and known[-2] else 1.0
                known.append(known[-1] * min(1.0, ratio) / 2)
            cost = matrix.whole + matrix.columns
            columns += [(value / cost, at, rank) for rank, value in enumerate(known, start=1)]
        return [(at, rank) for _, at, rank in sorted(columns, key=lambda c: -c[0]) if rank > 1]

    def spend(self, number: int, factors: Sequence[Sequence[Tensor]], told: bool) -> bool:
        """Learn from a round, and decide in every tenth; return whether ranks have changed."""
        self.learn(factors)
        if self.seen % PERIOD:
            return False
        ranks = self.decided()
        changes = [
            f"{matrix.name} {old} -> {new}"
            for matrix, old, new in zip(self.matrices, self.ranks, ranks, strict=True)
            if old != new
        ]
        if changes and told:
            log.info(
                "round %d  budget: columns of %s, which carry more per byte; %s of %s bytes",
                *(number, ", ".join(changes), f"{self.size(ranks):,}", f"{self.most:,}"),
            )
        self.ranks = ranks
        return bool(changes)

    def tables(self) -> list[Table]:
        """Return the model's tables with the ranks that were decided."""
        ranks = iter(self.ranks)
        return [replace(t, full_rank=next(ranks)) if t.full_rank else t for t in self.whole]

    def state(self) -> dict[str, Any]:
        return {"ranks": self.ranks, "lengths": self.lengths, "seen": self.seen}

    def load(self, state: Mapping[str, Any]) -> None:
        self.ranks, self.seen = list(state["ranks"]), state["seen"]
        self.lengths = list(state["lengths"])
        if self.size(self.ranks) > self.most:
            self.ranks = self.decided()
