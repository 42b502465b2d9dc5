"""Windows of a text, the samples of a language task, and how a text is divided among clients.

All are pure functions of lengths, clients and a seed, and know no token.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.config.errors import ConfigError

Numbers = npt.NDArray[np.int64]

REDRAWS = 100_000  # of GWPF's lengths; a few dozen are usual


class Windows(NamedTuple):
    """Samples of a text: window i predicts the tokens after `starts[i]`, `lengths[i]` of them.

    Its inputs are the tokens from starts[i] to starts[i] + lengths[i] - 1, its targets those one
    place later, so that windows next to each other predict each token once.
    """

    starts: Numbers  # (n,)
    lengths: Numbers  # (n,), at most T


def cut(begin: int, end: int, context: int, columns: int = 1) -> Windows:
    """Cut a text, tokens `begin` to `end`, into windows of `context` tokens; the last is shorter.

    With several columns it is GWPF's batchify: the text is divided into so many columns of equal
    length, tokens that are left over are dropped, and the windows come in the order in which the
    columns are read side by side: the first one of each column, then the second one of each.
    """
    length = (end - begin) // columns  # of a column
    rows = np.arange(0, max(0, length - 1), context)
    starts = begin + rows[:, None] + length * np.arange(columns)
    lengths = np.repeat(np.minimum(context, length - 1 - rows), columns)
    return Windows(starts.reshape(-1), lengths)


def joined(parts: Sequence[Windows]) -> Windows:
    """Return the windows of several texts in one table, in order."""
    starts, lengths = zip(*parts, strict=True)
    return Windows(np.concatenate(starts), np.concatenate(lengths))


def contiguous(total: int, clients: int) -> Numbers:
    """Return the tokens of each client, (clients,): equal, but for one more in the first ones."""
    return total // clients + (np.arange(clients) < total % clients).astype(np.int64)


def gwpf_lengths(total: int, clients: int, seed: int) -> Numbers:
    """Return the tokens of each client, (clients,), by the greedy rule of GWPF's released code.

    Each gets one; then a random client gets up to about a quarter of what is left, until nothing is
    left. Client and amount are drawn from the same seed, which then grows by two, as there; the sum
    is the whole text. There each client has a prefix of that length; here they follow each other.
    """
    most = total / clients + total / 2
    lengths, left = np.ones(clients, np.int64), total - clients
    for turn in range(REDRAWS):
        if left <= 0:
            return lengths
        state = (seed + 2 * turn) % 2**32
        client = np.random.RandomState(state).randint(0, clients)
        if lengths[client] >= most:  # the released code would draw the same client forever
            continue
        amount = min(np.random.RandomState(state).randint(1, left // 4 + 4), left)
        lengths[client] += amount
        left -= amount
    raise ConfigError("seed", "draws no lengths of the clients' texts; use another seed")


def dealt(sizes: Numbers, clients: int, seed: int) -> list[Numbers]:
    """Deal documents of these sizes; return each client's, by number and in ascending order.

    In random order each goes to the client that has the fewest tokens so far.
    """
    if len(sizes) < clients:
        raise ConfigError(
            "data.partition.name",
            f"documents: the text has {len(sizes)} for {clients} clients; give more documents (a "
            "folder of .txt files), use fewer clients, or set data.partition.name=contiguous",
        )
    hands: list[list[int]] = [[] for _ in range(clients)]
    tokens = np.zeros(clients, np.int64)
    for document in np.random.RandomState(seed % 2**32).permutation(len(sizes)):
        client = int(np.argmin(tokens))  # the first of several
        hands[client].append(int(document))
        tokens[client] += sizes[document]
    return [np.sort(np.array(hand, np.int64)) for hand in hands]


def _documents(sizes: Numbers, clients: int, seed: int) -> tuple[Numbers, Numbers]:
    hands = dealt(sizes, clients, seed)
    return np.concatenate(hands), np.array([sizes[hand].sum() for hand in hands])


# The partitions that cut a text into one piece for each client. From sizes of documents, clients
# and a seed: the order in which documents follow each other, and the tokens of each client.
PIECES: dict[str, Callable[[Numbers, int, int], tuple[Numbers, Numbers]]] = {
    "contiguous": lambda sizes, clients, _: (
        np.arange(len(sizes)),
        contiguous(int(sizes.sum()), clients),
    ),
    "documents": _documents,
    "lengths": lambda sizes, clients, seed: (
        np.arange(len(sizes)),
        gwpf_lengths(int(sizes.sum()), clients, seed),
    ),
}
