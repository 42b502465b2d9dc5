"""The division of a model into fragments, which travel in turn; a function of its tensors alone.

A fragment is made of whole layers, as far as they have at most the model's fair share, P / F values
for each of F fragments. Of a larger layer tensors stay whole; only a tensor that has more is cut.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from math import ceil
from typing import Literal

from trainer.layout import Layout


def divide(
    whole: Layout, count: int, pattern: Literal["strided", "sequential"]
) -> list[list[range]]:
    """Divide a whole model's values into `count` fragments: places in its vector (P,).

    sequential: neighbours, cut where layers end that are nearest to equal parts. strided: layers
    are dealt out, the largest first, each to the fragment that has the least so far. Of equal
    layers fragment p has p, p + F, p + 2 F, ..., as in the paper. What must be cut fills them up.
    """
    share = whole.size / count
    items = list(_items(whole, share))
    return (
        _in_a_row(items, share, count) if pattern == "sequential" else _dealt(items, share, count)
    )


def here(fragment: Iterable[range], whole: Layout, own: Layout) -> list[slice]:
    """Return those of a fragment's places that a stage has, in its vector; neighbours as one."""
    starts = {piece.name: piece.start for piece in own.pieces}
    found: list[slice] = []
    for places in sorted(fragment, key=lambda places: places.start):
        for piece in whole.pieces:
            first, last = max(piece.start, places.start), min(piece.place.stop, places.stop)
            if piece.name not in starts or first >= last:
                continue
            moved = starts[piece.name] - piece.start
            start, stop = first + moved, last + moved
            if found and found[-1].stop == start:
                start = found.pop().start
            found.append(slice(start, stop))
    return found


def _items(whole: Layout, share: float) -> Iterator[range]:
    """Yield the places of what stays together: layers, or the tensors of one above its share."""
    for _, group in groupby(whole.pieces, lambda piece: piece.name.partition(".")[0]):
        layer = list(group)
        ends = [layer[0].start, *(piece.place.stop for piece in layer)]
        if ends[-1] - ends[0] <= share:
            ends = [ends[0], ends[-1]]
        yield from (range(a, b) for a, b in pairwise(ends))


def _in_a_row(items: Sequence[range], share: float, count: int) -> list[list[range]]:
    edges = [0]
    for number in range(1, count):
        edge = round(number * share)
        item = next(item for item in items if edge < item.stop)
        if len(item) <= share:  # a later edge is a share away, so no fragment becomes empty
            edge = item.start if edge - item.start < item.stop - edge else item.stop
        edges.append(edge)
    return [[range(a, b)] for a, b in pairwise([*edges, items[-1].stop])]


def _dealt(items: Sequence[range], share: float, count: int) -> list[list[range]]:
    dealt: list[list[range]] = [[] for _ in range(count)]
    held = [0] * count
    for item in sorted(items, key=len, reverse=True):  # stable: equals in their order
        if len(item) <= share:
            least = held.index(min(held))
            dealt[least].append(item)
            held[least] += len(item)
    for item in items:
        if len(item) > share:
            start = item.start
            for at in range(count):
                size = max(0, min(ceil(share) - held[at], item.stop - start))
                dealt[at].append(range(start, start + size))
                held[at] += size
                start += size
    return dealt
