"""Partition of the samples across clients: pure functions of labels, clients and a seed.

No other module decides which client holds which sample. Each function returns one array of indices
per client, without duplicates, already in random order. The generators are those that numpy and
Python have frozen, so a seed gives the same split forever.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.config.data import Partition
from trainer.config.errors import ConfigError

Labels = npt.NDArray[np.int64]
Parts = list[npt.NDArray[np.int64]]

EVERYTHING = -1.0  # the share that gives every client all samples


def partition(config: Partition, labels: Labels, clients: int, seed: int) -> Parts:
    """Return the indices of each client's samples; every client has some, all if they share."""
    if clients > len(labels):
        raise ConfigError(
            "clients", f"{clients} is more than the {len(labels)} training samples; lower it"
        )
    parts = _SPLITS[config.name](config, labels, clients, seed)
    empty = next((client for client, part in enumerate(parts) if len(part) == 0), None)
    if empty is not None:
        key, remedy = _REMEDIES[config.name]
        raise ConfigError(key, f"client {empty} of {clients} would hold no sample; {remedy}")
    return parts


def without_holdout(parts: Parts, share: float) -> list[Tensor]:
    """Return each client's samples without the share of them that it never trains on."""
    return [torch.from_numpy(part[: len(part) - int(len(part) * share)]) for part in parts]


def held(
    config: Partition, parts: Sequence[Tensor], clients: Sequence[int]
) -> tuple[Tensor | None, Sequence[Tensor]]:
    """Return the samples that these clients have, each once, and all parts as places among them.

    None: all samples, and the parts as they are. The parts of other clients keep their length, but
    their places are not valid.
    """
    if len(clients) == len(parts) or config.name == "shared":
        return None, parts
    kept, places = torch.unique(torch.cat([parts[c] for c in clients]), return_inverse=True)
    own = dict(zip(clients, places.split([len(parts[c]) for c in clients]), strict=True))
    return kept, [own.get(c, torch.full_like(part, -1)) for c, part in enumerate(parts)]


def iid(labels: Labels, clients: int, seed: int) -> Parts:
    """Split at random into equal parts; the first n mod clients get one more sample."""
    return np.array_split(_numbers(seed).permutation(len(labels)), clients)


def dirichlet_over_clients(labels: Labels, clients: int, seed: int, alpha: float) -> Parts:
    """Divide each class among the clients by one Dirichlet draw, as in GWPF's released code.

    The split is that code's, sample for sample: the same draws and cuts, and one shuffle of each
    client's list by a generator that is seeded again for every client.
    """
    numbers = _numbers(seed)
    indices, owners = [], []
    for label in range(int(np.max(labels)) + 1):
        of_class = np.flatnonzero(labels == label)
        shares = _dirichlet(numbers, alpha, clients)
        cuts = (np.cumsum(shares)[:-1] * len(of_class)).astype(int)
        counts = np.diff(cuts, prepend=0, append=len(of_class))
        indices.append(of_class)
        owners.append(np.repeat(np.arange(clients), counts))
    parts = _dealt(np.concatenate(indices), np.concatenate(owners), clients)
    return [_shuffled_by_python(part, seed) for part in parts]


def dirichlet_over_classes(labels: Labels, clients: int, seed: int, alpha: float) -> Parts:
    """Draw a class mix for each client, which takes an equal number of samples (Hsu et al. 2019).

    When a class runs out, the mix is renormalised over the classes that have samples left.
    """
    numbers = _numbers(seed)
    classes = int(np.max(labels)) + 1
    pools = [numbers.permutation(np.flatnonzero(labels == label)) for label in range(classes)]
    stock = np.array([len(pool) for pool in pools])
    parts: Parts = []
    for client in range(clients):
        size = (len(labels) + clients - 1 - client) // clients  # the first ones get the remainder
        taken = _take(numbers, _dirichlet(numbers, alpha, classes), stock, size)
        mine = [
            pool[left - count : left] for pool, left, count in zip(pools, stock, taken, strict=True)
        ]
        stock -= taken
        parts.append(numbers.permutation(np.concatenate(mine)))
    return parts


def _take(
    numbers: np.random.RandomState, mix: npt.NDArray[np.float64], stock: Labels, size: int
) -> Labels:
    """Draw how many of `size` samples are of each class, by `mix`, at most `stock`: (classes,)."""
    taken = np.zeros_like(stock)
    while (missing := size - int(taken.sum())) > 0:  # each turn is the last, or empties a class
        left = stock - taken
        weights = np.where(left > 0, mix, 0.0)
        if weights.sum() < 1e-12:  # the mix has only classes that have run out
            weights = left.astype(np.float64)
        drawn = numbers.multinomial(missing, weights / weights.sum())
        taken += np.minimum(drawn, left)
    return taken


def shards(
    labels: Labels, clients: int, seed: int, per_client: int, balance: bool = False
) -> Parts:
    """Sort by label, cut into equal shards, and deal each client `per_client` (McMahan 2017)."""
    numbers = _numbers(seed)
    by_label = np.argsort(labels, kind="stable")
    if balance:
        by_label = _equal_classes(by_label, labels, numbers)
    pieces = np.array_split(by_label, clients * per_client)
    hands = numbers.permutation(len(pieces)).reshape(clients, per_client)
    return [numbers.permutation(np.concatenate([pieces[i] for i in hand])) for hand in hands]


def _equal_classes(by_label: Labels, labels: Labels, numbers: np.random.RandomState) -> Labels:
    """Keep as many of each class as the rarest has, chosen at random, still sorted by label."""
    counts = np.bincount(labels)
    groups = np.split(by_label, np.cumsum(counts)[:-1])
    least = counts[counts > 0].min()
    return np.concatenate([np.sort(numbers.permutation(g)[:least]) for g in groups if len(g)])


def percentage_iid(labels: Labels, clients: int, seed: int, share: float) -> Parts:
    """Deal a `share` of the samples at random, and the rest by label (FedGA, SCAFFOLD).

    Remainders: the first clients get one more sample of the random part, the last clients one more
    of the sorted part, so sizes differ by at most one. With `share` -1 every client holds all
    samples; no other split gives a sample to more than one client.
    """
    numbers = _numbers(seed)
    if share == EVERYTHING:
        return [numbers.permutation(len(labels)) for _ in range(clients)]
    mixed, rest = np.split(numbers.permutation(len(labels)), [int(len(labels) * share)])
    rest = np.sort(rest)
    rest = rest[np.argsort(labels[rest], kind="stable")]
    random_chunks = np.array_split(mixed, clients)
    sorted_chunks = np.array_split(rest[::-1], clients)[::-1]
    return [
        numbers.permutation(np.concatenate(chunks))
        for chunks in zip(random_chunks, sorted_chunks, strict=True)
    ]


def _some_in_each_shard(own: Any, labels: Labels, clients: int, seed: int) -> Parts:
    """Refuse more shards than samples, before as many arrays are made."""
    if clients * own.per_client > len(labels):
        raise ConfigError(
            "data.partition.per_client",
            f"{own.per_client} for each of {clients} clients are more shards than the "
            f"{len(labels)} samples; lower per_client, or use fewer clients",
        )
    return shards(labels, clients, seed, own.per_client, own.balance)


_OVER = {"clients": dirichlet_over_clients, "classes": dirichlet_over_classes}
_SPLITS: dict[str, Callable[[Any, Labels, int, int], Parts]] = {
    "iid": lambda _, y, clients, seed: iid(y, clients, seed),
    "dirichlet": lambda own, y, clients, seed: _OVER[own.over](y, clients, seed, own.alpha),
    "shards": _some_in_each_shard,
    "percentage-iid": lambda own, y, clients, seed: percentage_iid(y, clients, seed, own.share),
    "shared": lambda own, y, clients, seed: [np.arange(len(y))] * clients,  # one array for all
}
_REMEDIES = {
    "dirichlet": ("data.partition.alpha", "raise alpha, use fewer clients or another seed"),
    "shards": ("data.partition.per_client", "lower per_client, or use fewer clients"),
}


def _numbers(seed: int) -> np.random.RandomState:
    return np.random.RandomState(seed % 2**32)  # the legacy generator takes 32 bits


def _dirichlet(numbers: np.random.RandomState, alpha: float, size: int) -> npt.NDArray[np.float64]:
    """Draw shares, (size,); if a tiny alpha makes all underflow, use the limit: one gets all."""
    shares = numbers.dirichlet([alpha] * size)
    if not np.isfinite(shares).all():
        shares = np.zeros(size)
        shares[numbers.randint(size)] = 1.0
    return shares


def _dealt(indices: Labels, owners: Labels, clients: int) -> Parts:
    """Return each owner's indices, in the order given."""
    sizes = np.bincount(owners, minlength=clients)
    return np.split(indices[np.argsort(owners, kind="stable")], np.cumsum(sizes)[:-1])


def _shuffled_by_python(part: Labels, seed: int) -> Labels:
    places = list(range(len(part)))
    random.Random(seed).shuffle(places)  # noqa: S311  # reproducible, and no secret
    return part[places]
