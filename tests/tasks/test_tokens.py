"""The task of language: which tokens clients and tests are given, and what is counted of them."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from tests import prose
from tests.data.test_windows import batchify
from trainer.config.errors import ConfigError
from trainer.config.load import load
from trainer.data.sampling import Sampler
from trainer.tasks.tokens import IGNORED, Tokens

CPU = torch.device("cpu")
PARTITIONS = ("iid", "shared", "contiguous", "documents", "lengths")


def task(tree: dict, rank: int = 0, ranks: int = 1) -> Tokens:
    return Tokens(load(tree)[0], CPU, rank, ranks, download=False)


def words(found: Tokens, places: torch.Tensor) -> list[tuple[list[int], list[int]]]:
    """The inputs and targets of each sample, without what only fills its batch."""
    pairs = []
    for x, y, units in found.batches(places.split(1), None):
        assert units == (y != IGNORED).sum()
        assert x.shape == y.shape and x.dtype == y.dtype == torch.int64
        pairs.append((x[0].tolist(), y[0].tolist()))
    return pairs


@pytest.mark.parametrize("partition", PARTITIONS)
def test_clients_divide_the_text_among_them(tmp_path, partition):
    tree = prose.tree(prose.folder(tmp_path / "d"), data={"partition": {"name": partition}})
    found = task(tree)
    whole = Counter(found.tokens.tolist())
    parts = found.split()
    assert len(parts) == 4 and all(len(part) for part in parts)
    targets = [Counter(token for _, y in words(found, part) for token in y) for part in parts]
    if partition == "shared":
        assert all(own == targets[0] for own in targets)
        targets = targets[:1]
    # iid and shared: all but the first token of the text; others: of each client's
    pieces = 1 if partition in ("iid", "shared") else 4
    begins = (
        [found.windows.starts.min()]
        if pieces == 1
        else [found.windows.starts[part[0]] for part in parts]
    )
    first = Counter(found.tokens[begins].tolist())
    assert first.total() == pieces and sum(targets, first) == whole
    if partition != "shared":
        places = [set(part.tolist()) for part in parts]
        assert sum(map(len, places)) == len(set.union(*places)) == sum(map(len, parts))


def test_documents_stay_whole(tmp_path):
    tree = prose.tree(prose.folder(tmp_path / "d"), data={"partition": {"name": "documents"}})
    found = task(tree)
    documents = [document.tolist() for document in found.tokens.split(found.sizes.tolist())]
    ends = np.cumsum([len(part) for part in found.split()])
    first = found.windows.starts[np.concatenate([[0], ends[:-1]])]
    for begin, end in zip(first, [*first[1:], len(found.tokens)], strict=True):
        rest = found.tokens[begin:end].tolist()
        while rest:  # each client's text is some of the documents, one after the other
            fitting = [d for d in documents if rest[: len(d)] == d]
            assert fitting
            rest = rest[len(fitting[0]) :]


@pytest.mark.parametrize("partition", ["contiguous", "lengths"])
def test_a_fixed_order_is_batchify(tmp_path, partition):
    (tmp_path / "a.txt").write_text(prose.prose(400))
    tree = prose.tree(
        tmp_path / "a.txt",
        data={"partition": {"name": partition}, "sampling": "fixed", "context": 7},
        seed=3000,
    )
    found = task(tree)
    parts = found.split()
    sampler = Sampler(parts, batch_size=4, seed=1, reshuffle=False)
    begin = 0
    for client in range(4):
        length = int(found.windows.starts[parts[client][0]])
        assert length == begin
        rows = [part for part in parts[client + 1 : client + 2]]
        end = int(found.windows.starts[rows[0][0]]) if rows else len(found.tokens)
        expected = list(batchify(found.tokens[begin:end].numpy(), 4, 7))
        assert sampler.steps_per_pass(client) == len(expected)
        places = (sampler.places(client, k) for k in range(len(expected)))
        given = zip(found.batches(places, None), expected, strict=True)
        for (x, y, _), (inputs, targets) in given:
            assert np.array_equal(x.numpy(), inputs) and np.array_equal(y.numpy(), targets)
        begin = end


@pytest.mark.parametrize("partition", PARTITIONS)
def test_a_rank_that_keeps_some_clients_text_gives_them_the_same_samples(tmp_path, partition):
    tree = prose.tree(prose.folder(tmp_path / "d"), data={"partition": {"name": partition}})
    all_of_it, some = task(tree), task(tree)
    whole = all_of_it.hold(all_of_it.split(), range(4))
    held = some.hold(some.split(), [1, 3])
    assert [len(part) for part in held] == [len(part) for part in whole]
    for client in (1, 3):
        assert words(some, held[client]) == words(all_of_it, whole[client])
    if partition not in ("iid", "shared"):
        assert len(some.tokens) < 0.8 * len(all_of_it.tokens)


def test_ranks_share_the_test_text(tmp_path):
    tree = prose.tree(prose.folder(tmp_path / "d"))
    alone = [y.flatten() for _, y, _ in task(tree).test(5)]
    three = [y.flatten() for rank in range(3) for _, y, _ in task(tree, rank, 3).test(5)]
    real = [torch.cat(found)[torch.cat(found) != IGNORED] for found in (alone, three)]
    assert torch.equal(*(found.sort().values for found in real))
    assert len(real[0]) == len(task(tree).test_tokens) - 1


def test_a_short_window_counts_by_its_tokens(tmp_path):
    tree = prose.tree(prose.folder(tmp_path / "d"), data={"context": 50})
    found = task(tree)
    part = found.split()[0]
    ((x, y, units),) = found.batches([part], None)
    short = int((y[-1] != IGNORED).sum())
    assert 0 < short < 50 and not x[-1, short:].any()
    assert units == found.units(y) == 50 * (len(part) - 1) + short
    torch.manual_seed(0)
    output = torch.randn(*x.shape, found.vocabulary)
    kept = y.flatten() != IGNORED
    flat, targets = output.flatten(0, 1)[kept], y.flatten()[kept]
    assert torch.allclose(found.loss(output, y), cross_entropy(flat, targets))
    right, losses = found.score(output, y).tolist()
    assert right == int((flat.argmax(1) == targets).sum())
    assert math.isclose(losses, float(cross_entropy(flat, targets)) * units, rel_tol=1e-5)


def test_no_value_of_a_batch_is_waited_for(tmp_path):
    tree = prose.tree(prose.folder(tmp_path / "d"))
    device = torch.device("meta")  # it has no values
    found = Tokens(load(tree)[0], device, 0, 1, download=False)
    for x, y, units in (*found.batches([found.split()[0]], None), *found.test(5)):
        assert x.is_meta and y.is_meta and units > 0
        assert found.units(y).is_meta


def test_each_rank_makes_the_same_tokens_of_the_same_text(tmp_path):
    tokenizer = {"name": "sentencepiece", "size": 300}
    tree = prose.tree(prose.folder(tmp_path / "d"), data={"tokenizer": tokenizer})
    one, other = task(tree, 0, 2), task(tree, 1, 2)
    assert one.fingerprint == other.fingerprint != "" and torch.equal(one.tokens, other.tokens)


def test_one_byte_changes_the_fingerprint(tmp_path):
    path = prose.folder(tmp_path / "d")
    before = task(prose.tree(path)).fingerprint
    content = (path / "03.txt").read_text()
    (path / "03.txt").write_text(content.replace("\n", " \n", 1))
    assert task(prose.tree(path)).fingerprint != before


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        ("", {}, "the training text has 0 tokens"),
        ("one", {}, "needs 2"),
        ("one two three\n" * 3, {"clients": 20}, "two for each column of a batch"),
        (prose.prose(9), {"schedule": {"batch_size": 99}}, "a smaller schedule.batch_size"),
        (prose.prose(), {"data": {"partition": {"name": "documents"}}}, "give more documents"),
        (
            "\0\n",
            {},
            "data.test_share: the test text has 0 tokens, and a prediction needs 2; give more "
            "text, or another data.test_share",
        ),
    ],
)
def test_too_little_text_in_columns_is_refused_in_a_line(tmp_path, content, changes, message):
    (tmp_path / "a.txt").write_text(content)
    tree = prose.tree(tmp_path / "a.txt", **changes)
    tree["data"]["sampling"] = "fixed"
    with pytest.raises(ConfigError) as caught:
        task(tree).split()
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_too_little_text_without_columns_is_refused_in_a_line(tmp_path):
    (tmp_path / "a.txt").write_text("one two three\n" * 3)
    with pytest.raises(ConfigError) as caught:
        task(prose.tree(tmp_path / "a.txt", clients=20)).split()
    assert str(caught.value) == (
        "clients: client 0 of 20 would have 1 of the 12 tokens, and it needs 2; use fewer "
        "clients, or another seed or data.partition.name"
    )


def test_a_test_text_of_its_own_that_is_too_short_is_refused_in_a_line(tmp_path):
    for part, content in (("train", prose.prose()), ("test", "")):
        (tmp_path / part).mkdir()
        (tmp_path / part / "a.txt").write_text(content)
    with pytest.raises(ConfigError) as caught:
        task(prose.tree(tmp_path))
    assert str(caught.value) == (
        "data.path: the test text has 0 tokens, and a prediction needs 2; give more test text"
    )


def test_one_huge_line_is_a_text(tmp_path):
    (tmp_path / "a.txt").write_text(prose.prose(2000).replace("\n", " "))
    assert min(map(len, task(prose.tree(tmp_path / "a.txt")).split())) > 100
