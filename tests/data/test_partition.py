"""Partitions: GWPF's published sizes to the sample, then laws for all inputs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.config.data import IID, Dirichlet, Partition, PercentageIID, Shards, Shared
from trainer.config.errors import ConfigError
from trainer.data.partition import (
    Labels,
    Parts,
    dirichlet_over_classes,
    dirichlet_over_clients,
    held,
    iid,
    partition,
    percentage_iid,
    shards,
)

MNIST = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
CIFAR10 = [5000] * 10
EMNIST = [2400] * 47


def labelled(counts: list[int]) -> Labels:
    """Labels with these class counts, in no particular order."""
    return np.random.RandomState(7).permutation(np.repeat(np.arange(len(counts)), counts))


def sizes(parts: Parts) -> list[int]:
    return [len(part) for part in parts]


def table(parts: Parts, labels: Labels) -> list[list[int]]:
    classes = int(labels.max()) + 1
    return [np.bincount(labels[part], minlength=classes).tolist() for part in parts]


def is_split(parts: Parts, n: int) -> bool:
    """Every sample exactly once."""
    return sorted(np.concatenate(parts).tolist()) == list(range(n))


# --- GWPF's released partition: seed 3000, alpha 1, 10 clients ------------------------------------


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (MNIST, [6249, 6388, 4814, 6258, 7017, 5999, 6784, 4996, 5376, 6119]),
        (CIFAR10, [5178, 5376, 4049, 5221, 5899, 5081, 5522, 4049, 4496, 5129]),
        (EMNIST, [12667, 10189, 9730, 11032, 9879, 12546, 12891, 10174, 12150, 11542]),
    ],
    ids=["mnist", "cifar10", "emnist"],
)
def test_gwpf_sizes(counts: list[int], expected: list[int]) -> None:
    labels = labelled(counts)
    parts = partition(Dirichlet(alpha=1, over="clients"), labels, 10, 3000)
    assert sizes(parts) == expected
    assert is_split(parts, len(labels))


def test_gwpf_batches_of_100() -> None:
    parts = dirichlet_over_clients(labelled(MNIST), 10, 3000, 1.0)
    assert [-(-size // 100) for size in sizes(parts)] == [63, 64, 49, 63, 71, 60, 68, 50, 54, 62]


def test_gwpf_cifar10_clients_by_classes() -> None:
    labels = labelled(CIFAR10)
    assert table(dirichlet_over_clients(labels, 10, 3000, 1.0), labels) == [
        [404, 338, 315, 749, 47, 187, 571, 696, 714, 1157],
        [499, 491, 324, 380, 250, 1327, 153, 955, 521, 476],
        [703, 60, 193, 48, 968, 11, 15, 290, 254, 1507],
        [222, 919, 228, 1776, 44, 1549, 84, 48, 142, 209],
        [416, 41, 693, 707, 2149, 518, 162, 1055, 43, 115],
        [762, 210, 1757, 102, 335, 678, 398, 173, 423, 243],
        [1044, 1439, 738, 192, 186, 346, 424, 387, 97, 669],
        [94, 1006, 40, 244, 232, 246, 662, 888, 522, 115],
        [430, 224, 320, 233, 552, 76, 247, 505, 1406, 503],
        [426, 272, 392, 569, 237, 62, 2284, 3, 878, 6],
    ]


def test_gwpf_order_within_a_client() -> None:
    """Class by class in the order of the data, then shuffled by `random.seed(seed)` per client."""
    import random

    labels = labelled([30, 50, 20])
    parts = dirichlet_over_clients(labels, 4, 3000, 1.0)
    for part in parts:
        expected = [i for label in range(3) for i in sorted(part) if labels[i] == label]
        random.Random(3000).shuffle(expected)  # as the trainer does
        assert part.tolist() == expected


# --- other published facts ------------------------------------------------------------------------


def test_percentage_iid_zero_gives_each_client_one_class() -> None:
    """FedGA's setting: EMNIST over 47 clients, CIFAR-10 over 10."""
    for counts in (EMNIST, CIFAR10):
        labels = labelled(counts)
        parts = percentage_iid(labels, len(counts), 1, 0.0)
        assert table(parts, labels) == np.diag(counts).tolist()


def test_percentage_iid_minus_one_gives_everybody_everything() -> None:
    parts = percentage_iid(labelled([10, 10]), 3, 1, -1.0)
    assert [sorted(part.tolist()) for part in parts] == [list(range(20))] * 3


def test_percentage_iid_half() -> None:
    labels = labelled(CIFAR10)
    for row, counts in enumerate(table(percentage_iid(labels, 10, 1, 0.5), labels)):
        assert sum(counts) == 5000
        assert counts[row] > 2000, "half of client k's samples are of class k, give or take"


def test_two_shards_give_most_clients_two_classes() -> None:
    labels = labelled(MNIST)
    parts = shards(labels, 100, 42, 2)
    assert set(sizes(parts)) == {600}
    classes = [len(np.unique(labels[part])) for part in parts]
    assert max(classes) <= 4 and classes.count(2) > 60


@pytest.mark.parametrize("over", ["clients", "classes"])
def test_smaller_alpha_is_more_skewed(over: str) -> None:
    labels = labelled([500] * 10)
    split = {"clients": dirichlet_over_clients, "classes": dirichlet_over_classes}[over]

    def largest_share(alpha: float) -> float:
        counts = np.array(table(split(labels, 10, 1, alpha), labels))
        return float((counts.max(1) / counts.sum(1).clip(1)).mean())

    assert largest_share(0.05) > largest_share(1.0) > largest_share(100.0)
    assert largest_share(100.0) < 0.2


@pytest.mark.parametrize("alpha", [1e-5, 1e-300])
def test_the_tiniest_alpha_still_splits(alpha: float) -> None:
    labels = labelled([50] * 10)
    assert is_split(dirichlet_over_clients(labels, 10, 1, alpha), 500)
    assert is_split(dirichlet_over_classes(labels, 10, 1, alpha), 500)


# --- laws -----------------------------------------------------------------------------------------

CONFIGS: list[Partition] = [
    IID(),
    Dirichlet(alpha=1000.0, over="clients"),
    Dirichlet(alpha=0.3, over="classes"),
    Shards(per_client=1),
    PercentageIID(share=0.0),
    PercentageIID(share=0.37),
    PercentageIID(share=1.0),
]


def labels_of(draw_counts: list[int]) -> Labels:
    return labelled(draw_counts).astype(np.int64)


counts = st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(lambda some: sum(some) > 0)


@given(
    counts=counts,
    clients=st.integers(1, 12),
    seed=st.integers(0, 2**40),
    alpha=st.sampled_from([1e-3, 0.1, 1.0, 50.0]),
    share=st.floats(0, 1),
    per_client=st.integers(1, 4),
)
def test_each_sample_once_and_the_same_every_time(
    counts: list[int], clients: int, seed: int, alpha: float, share: float, per_client: int
) -> None:
    labels = labels_of(counts)
    for split, *options in (
        (iid,),
        (dirichlet_over_clients, alpha),
        (dirichlet_over_classes, alpha),
        (shards, per_client),
        (percentage_iid, share),
    ):
        parts = split(labels, clients, seed, *options)
        assert len(parts) == clients
        assert is_split(parts, len(labels))
        again = split(labels.copy(), clients, seed, *options)
        assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@given(counts=counts, clients=st.integers(1, 12), seed=st.integers(0, 99), share=st.floats(0, 1))
def test_equal_sizes_where_they_are_promised(
    counts: list[int], clients: int, seed: int, share: float
) -> None:
    labels = labels_of(counts)
    for parts in (
        iid(labels, clients, seed),
        dirichlet_over_classes(labels, clients, seed, 0.5),
        shards(labels, clients, seed, 1),
        percentage_iid(labels, clients, seed, share),
    ):
        assert max(sizes(parts)) - min(sizes(parts)) <= 1


@pytest.mark.parametrize("config", CONFIGS, ids=repr)
def test_another_seed_is_another_split(config: Partition) -> None:
    labels = labelled([300] * 4)
    one, other = (partition(config, labels, 4, seed) for seed in (1, 2))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("config", CONFIGS, ids=repr)
def test_lists_are_not_sorted_by_label(config: Partition) -> None:
    """A loader that never reshuffles relies on it."""
    labels = labelled([300] * 4)
    mixed = [part for part in partition(config, labels, 3, 1) if len(np.unique(labels[part])) > 1]
    assert mixed
    assert all((np.diff(labels[part]) != 0).sum() > 10 for part in mixed)


# --- errors ---------------------------------------------------------------------------------------


def test_more_clients_than_samples() -> None:
    with pytest.raises(ConfigError, match="clients: 21 is more than the 20 training samples"):
        partition(IID(), labelled([10, 10]), 21, 1)


def test_a_client_without_samples_names_alpha() -> None:
    with pytest.raises(ConfigError) as caught:
        partition(Dirichlet(alpha=0.001), labelled([10, 10]), 10, 1)
    assert caught.value.key == "data.partition.alpha"
    assert "of 10 would hold no sample; raise alpha" in caught.value.problem


def test_more_shards_than_samples_are_refused_before_they_are_cut() -> None:
    with pytest.raises(ConfigError, match="more shards than the 60 samples; lower per_client"):
        partition(Shards(per_client=1_000_000), labelled([60]), 60, 1)


def test_a_client_without_samples_names_per_client() -> None:
    with pytest.raises(ConfigError) as caught:
        partition(Shards(per_client=50), labelled([10]), 10, 1)
        partition(Shards(per_client=2), labelled([11]), 10, 1)
    assert caught.value.key == "data.partition.per_client"


@given(counts=counts, seed=st.integers(0, 99), share=st.floats(0, 1))
def test_as_many_samples_as_clients_is_enough_for_equal_splits(
    counts: list[int], seed: int, share: float
) -> None:
    labels = labels_of(counts)
    for config in (IID(), Dirichlet(over="classes"), PercentageIID(share=share)):
        assert all(sizes(partition(config, labels, len(labels), seed)))


def test_a_rank_holds_each_sample_of_its_clients_once() -> None:
    parts = [torch.tensor(part) for part in ([5, 2], [7, 2, 9], [1])]
    kept, places = held(IID(), parts, [0, 1])
    assert kept.tolist() == [2, 5, 7, 9]
    assert [kept[places[client]].tolist() for client in (0, 1)] == [[5, 2], [7, 2, 9]]
    assert places[2].tolist() == [-1]
    for config, clients in ((IID(), [0, 1, 2]), (Shared(), [1])):
        assert held(config, parts, clients) == (None, parts)
