"""Owns what a round consists of, so that two subjects of a comparison do the same work."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """FedAvg's local work; `data`: an .npz file, or None for the embedded digits."""

    name: str
    model: str
    data: str | None
    batch_size: int
    lr: float
    weight_decay: float = 0.0
    clients: int = 10
    steps: int = 5
    seed: int = 1


def digits(seed: int) -> Work:
    return Work("digits", "digits-cnn", None, batch_size=32, lr=0.05, seed=seed)


def emnist(data: str, seed: int) -> Work:
    """EMNIST digits with LeNet, as in the comparison of freezing policies."""
    return Work("emnist-digits", "lenet", data, 100, lr=0.05, weight_decay=0.001, seed=seed)
