"""Windows of a text: each token is predicted once; batchify as published; disjoint divisions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.config.data import InOrder
from trainer.config.errors import ConfigError
from trainer.data import windows


def batchify(tokens: np.ndarray, columns: int, context: int):
    """Yield inputs and targets as batchify and get_batch of GWPF and PyTorch's example do."""
    length = len(tokens) // columns
    table = tokens[: length * columns].reshape(columns, length).T  # (length, columns)
    for row in range(0, length - 1, context):
        size = min(context, length - 1 - row)
        yield table[row : row + size].T, table[row + 1 : row + 1 + size].T


@given(
    begin=st.integers(0, 50),
    size=st.integers(2, 400),
    context=st.integers(1, 40),
    columns=st.integers(1, 7),
)
def test_windows_in_columns_are_batchify(begin, size, context, columns):
    tokens = np.arange(1000, 1000 + begin + size)
    table = windows.cut(begin, begin + size, context, columns)
    batches = list(batchify(tokens[begin:], columns, context))
    assert len(table.starts) == len(table.lengths) == columns * len(batches)
    for number, (x, y) in enumerate(batches):
        chosen = slice(number * columns, (number + 1) * columns)
        for place, length, inputs, targets in zip(
            table.starts[chosen], table.lengths[chosen], x, y, strict=True
        ):
            assert np.array_equal(tokens[place : place + length], inputs)
            assert np.array_equal(tokens[place + 1 : place + 1 + length], targets)


@given(begin=st.integers(0, 50), size=st.integers(0, 400), context=st.integers(1, 40))
def test_each_token_after_the_first_is_predicted_once(begin, size, context):
    table = windows.cut(begin, begin + size, context)
    predicted = [
        place
        for start, length in zip(table.starts, table.lengths, strict=True)
        for place in range(start + 1, start + 1 + length)
    ]
    assert predicted == list(range(begin + 1, begin + size))


def test_every_partition_that_keeps_neighbours_together_is_in_the_table():
    assert {kind.model_fields["name"].default for kind in InOrder.__subclasses__()} == set(
        windows.PIECES
    )
    sizes = np.array([3, 0, 9, 5, 7])
    for pieces in windows.PIECES.values():
        order, lengths = pieces(sizes, 3, 8)
        assert sorted(order) == [0, 1, 2, 3, 4] and len(lengths) == 3
        assert lengths.sum() == sizes.sum()


@given(total=st.integers(0, 10_000), clients=st.integers(1, 50))
def test_contiguous_texts_are_equal(total, clients):
    lengths = windows.contiguous(total, clients)
    assert lengths.sum() == total and lengths.max() - lengths.min() <= 1


def test_lengths_are_those_of_the_released_code():
    expected = [286693, 432496, 66660, 444265, 19422, 291096, 9359, 68503, 16299, 453835]
    lengths = windows.gwpf_lengths(2_088_628, 10, 3000)
    assert lengths.tolist() == expected
    batches = [len(windows.cut(0, int(length), 35, 100).starts) // 100 for length in lengths]
    assert batches == [82, 124, 19, 127, 6, 84, 3, 20, 5, 130]


@given(total=st.integers(1, 100_000), clients=st.integers(1, 30), seed=st.integers(0, 2**63 - 1))
def test_lengths_are_of_the_whole_text(total, clients, seed):
    total = max(total, clients)
    lengths = windows.gwpf_lengths(total, clients, seed)
    assert lengths.sum() == total and len(lengths) == clients and lengths.min() >= 1


@given(
    sizes=st.lists(st.integers(1, 500), min_size=1, max_size=60),
    clients=st.integers(1, 20),
    seed=st.integers(0, 2**63 - 1),
)
def test_documents_are_dealt_whole_and_each_once(sizes, clients, seed):
    if len(sizes) < clients:
        with pytest.raises(ConfigError, match=r"fewer clients, or set data\.partition\.name"):
            windows.dealt(np.array(sizes), clients, seed)
        return
    hands = windows.dealt(np.array(sizes), clients, seed)
    assert sorted(np.concatenate(hands).tolist()) == list(range(len(sizes)))
    tokens = [sum(sizes[n] for n in hand) for hand in hands]
    assert all(len(hand) for hand in hands)
    assert max(tokens) - min(tokens) <= max(sizes)  # as the last one went to whom had least
    again = windows.dealt(np.array(sizes), clients, seed)
    assert [hand.tolist() for hand in again] == [hand.tolist() for hand in hands]
