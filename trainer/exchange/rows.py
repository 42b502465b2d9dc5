"""Rows of tensors: what a policy freezes as a whole where single values cannot be left out.

A row is what belongs to one index of a tensor's first dimension: the weights into one neuron, the
kernels of one channel, one value of a bias. Where matrices travel as factors (low rank), rows can
be left out, but single values cannot.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from trainer.layout import Layout


class Rows:
    """The R rows of all tensors of a vector (P,), one after another.

    Everything here goes tensor by tensor: so sums are added in one order on every rank.
    """

    def __init__(self, layout: Layout) -> None:
        self.size = layout.size
        self.places = [(p.place, p.shape[0] if p.shape else 1) for p in layout.pieces]
        self.count = sum(rows for _, rows in self.places)

    def _tables(self, values: Tensor) -> Iterator[Tensor]:
        """Yield each tensor as a table (rows, length of a row), as a view."""
        for place, rows in self.places:
            yield values[place].view(rows, (place.stop - place.start) // max(rows, 1))

    def sums(self, values: Tensor) -> Tensor:
        """Return the sum over each row (R,) of values (P,)."""
        return torch.cat([table.sum(1) for table in self._tables(values)])

    def first(self, values: Tensor) -> Tensor:
        """Return the first value of each row (R,), of values (P,) that are one per row."""
        return torch.cat([table[:, 0] for table in self._tables(values)])

    def spread(self, own: Tensor) -> Tensor:
        """Return the values (P,) of which each row has its own, (R,)."""
        values = own.new_empty(self.size)
        pieces = own.split([rows for _, rows in self.places])
        for table, piece in zip(self._tables(values), pieces, strict=True):
            table.copy_(piece[:, None])
        return values
