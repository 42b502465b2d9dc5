"""Owns the subject "plain": FedAvg in one process as one writes it by hand, the fast ordinary way.

One model, a parameter-wise copy per client, torch.optim.SGD, batches by indexing with a
permutation, a weighted mean per parameter. Of the trainer it takes the network, and the function
that draws a client's order, so that both subjects see the same batches.

`python -m bench.plain '{"work": {...}, "ready": true, "rounds": N}'` plays and tests in a process
of its own, and prints its peak memory.
"""

import json
import sys

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from bench.memory import peak_bytes
from bench.work import Work
from trainer.data.sampling import order
from trainer.models.cnn import DigitsCNN, LeNet

MODELS = {"digits-cnn": DigitsCNN, "lenet": LeNet}


class Plain:
    """`ready`: images are normalised floats from the start, the fastest; else each batch is."""

    def __init__(self, work: Work, *, ready: bool) -> None:
        torch.set_num_threads(1)
        self.work, self.ready = work, ready
        (x, self.y, x_test, self.y_test), (self.scale, self.mean, self.std) = _data(work.data)
        self.x = self.prepare(x) if ready else x
        self.x_test = self.prepare(x_test) if ready else x_test
        everyone = np.random.RandomState(work.seed).permutation(len(self.y))
        self.parts = [torch.from_numpy(p) for p in np.array_split(everyone, work.clients)]
        self.orders = list(self.parts)
        self.epoch = [-1] * work.clients
        self.offset = [0] * work.clients
        torch.manual_seed(work.seed)
        self.model = MODELS[work.model]().train()
        self.agreed = [p.detach().clone() for p in self.model.parameters()]
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=work.lr, weight_decay=work.weight_decay
        )

    def prepare(self, x: Tensor) -> Tensor:
        """Integers (n, 1, H, W) to normalised floats."""
        return (x.to(torch.float32) / self.scale - self.mean) / self.std

    def round(self) -> None:
        mean = [torch.zeros_like(p) for p in self.agreed]
        for client, part in enumerate(self.parts):
            with torch.no_grad():
                for p, agreed in zip(self.model.parameters(), self.agreed, strict=True):
                    p.copy_(agreed)
            for _ in range(self.work.steps):
                indices = self.next_batch(client)
                x = self.x[indices] if self.ready else self.prepare(self.x[indices])
                self.optimizer.zero_grad()
                cross_entropy(self.model(x), self.y[indices]).backward()
                self.optimizer.step()
            with torch.no_grad():
                for total, p in zip(mean, self.model.parameters(), strict=True):
                    total.add_(p, alpha=len(part) / len(self.y))
        self.agreed = mean

    def next_batch(self, client: int) -> Tensor:
        """Indices into the data, (B,)."""
        part, start = self.parts[client], self.offset[client]
        if start == 0:
            self.epoch[client] += 1
            shuffle = order(self.work.seed, client, self.epoch[client], len(part))
            self.orders[client] = part[shuffle]
        stop = start + self.work.batch_size
        self.offset[client] = 0 if stop >= len(part) else stop
        return self.orders[client][start:stop]

    def parameters(self) -> Tensor:
        """The agreed model, (P,)."""
        return torch.cat([p.flatten() for p in self.agreed])

    @torch.no_grad()
    def accuracy(self) -> float:
        for p, agreed in zip(self.model.parameters(), self.agreed, strict=True):
            p.copy_(agreed)
        self.model.eval()
        correct = 0
        for x, y in zip(self.x_test.split(500), self.y_test.split(500), strict=True):
            logits = self.model(x if self.ready else self.prepare(x))
            correct += int((logits.argmax(1) == y).sum())
        self.model.train()
        return correct / len(self.y_test)


class Bare(Plain):
    """The same loop at its barest: one vector behind all parameters, which steps by `add_`.

    No optimizer object, no copy parameter by parameter; images are normalised from the start.
    """

    def __init__(self, work: Work) -> None:
        super().__init__(work, ready=True)
        parameters = list(self.model.parameters())
        self.vector = torch.cat([p.detach().flatten() for p in parameters])  # (P,)
        self.gradient = torch.zeros_like(self.vector)
        sizes = [p.numel() for p in parameters]
        pieces = zip(self.vector.split(sizes), self.gradient.split(sizes), strict=True)
        for parameter, (value, gradient) in zip(parameters, pieces, strict=True):
            parameter.data = value.view(parameter.shape)
            parameter.grad = gradient.view(parameter.shape)
        self.anchor = self.vector.clone()

    def round(self) -> None:
        mean = torch.zeros_like(self.anchor)
        for client, part in enumerate(self.parts):
            self.vector.copy_(self.anchor)
            for _ in range(self.work.steps):
                indices = self.next_batch(client)
                self.gradient.zero_()
                cross_entropy(self.model(self.x[indices]), self.y[indices]).backward()
                if self.work.weight_decay:
                    self.gradient.add_(self.vector, alpha=self.work.weight_decay)
                self.vector.add_(self.gradient, alpha=-self.work.lr)
            mean.add_(self.vector, alpha=len(part) / len(self.y))
        self.anchor = mean

    def parameters(self) -> Tensor:
        """The agreed model, (P,)."""
        return self.anchor


Arrays = tuple[Tensor, Tensor, Tensor, Tensor]  # x, y to train on; x, y to test on
Normal = tuple[float, float, float]  # scale, mean, standard deviation


def _data(path: str | None) -> tuple[Arrays, Normal]:
    if path is not None:
        with np.load(path) as file:
            x, y, x_test, y_test = (
                torch.from_numpy(file[name]) for name in ("x_train", "y_train", "x_test", "y_test")
            )
        return (x[:, None], y.long(), x_test[:, None], y_test.long()), (255.0, 0.1307, 0.3081)
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = torch.from_numpy(digits.images).to(torch.uint8)[:, None], torch.from_numpy(digits.target)
    # every fifth of each class is for testing, after a fixed shuffle
    shuffled = torch.from_numpy(np.random.RandomState(0).permutation(len(y)))
    test = torch.zeros(len(y), dtype=torch.bool)
    test[shuffled[torch.argsort(y[shuffled], stable=True)][::5]] = True
    return (x[~test], y[~test].long(), x[test], y[test].long()), (16.0, 0.3053, 0.3760)


def main() -> None:
    asked = json.loads(sys.argv[1])
    subject = Plain(Work(**asked["work"]), ready=asked["ready"])
    for _ in range(asked["rounds"]):
        subject.round()
    accuracy = subject.accuracy()
    print(json.dumps({"peak_rss_bytes": peak_bytes(), "accuracy": accuracy}))


if __name__ == "__main__":
    main()
