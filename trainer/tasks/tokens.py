"""Language modelling: the prediction of each next token of a text.

A sample is a window of T = data.context tokens. No other module above data/ knows tokens.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trainer.config.errors import ConfigError
from trainer.config.models import MODELS
from trainer.config.schema import Experiment
from trainer.data import text, windows
from trainer.data.fingerprint import of_text
from trainer.data.partition import held, partition, without_holdout
from trainer.data.tokenizers import Ids, tokenise
from trainer.data.windows import Windows
from trainer.tasks.task import Batch

IGNORED = -100  # the target after the end of a window that is shorter than its batch


class Tokens:
    """Windows of a text; the loss is the mean cross-entropy over their tokens."""

    random = False  # all randomness is in the network: dropout
    perplexed = True

    def __init__(
        self, experiment: Experiment, device: torch.device, rank: int, ranks: int, *, download: bool
    ) -> None:
        """Read the text and make its vocabulary; nothing is downloaded."""
        corpus = text.read(experiment.data)
        found = tokenise(experiment.data.tokenizer, corpus)
        self.experiment, self.device = experiment, device
        # Each rank may have another Python, or another file at the path.
        self.fingerprint, self.alike = of_text(corpus, found), True
        self.vocabulary = len(found.vocabulary)
        # Windows are cut on the CPU, where their lengths are known without waiting for a device.
        self.home = torch.device("cpu")
        self.sizes = np.array([len(document) for document in found.train], np.int64)
        self.tokens, test = _joined(found.train), _joined(found.test)
        _refuse_too_short(self.tokens, "training text", divided=corpus.divided)
        _refuse_too_short(test, "test text", divided=corpus.divided)
        self.windows = Windows(np.empty(0, np.int64), np.empty(0, np.int64))  # until `split`
        self.test_tokens = test
        self.test_windows = windows.cut(0, len(test), experiment.data.context)
        self.share = slice(rank, None, ranks)  # every rank evaluates each `ranks`-th window

    def model(self) -> nn.Module:
        """Create the network that the experiment names, for this vocabulary."""
        chosen = self.experiment.model
        network: nn.Module = MODELS[chosen.name](vocabulary=self.vocabulary)
        return network.double() if chosen.precision == "fp64" else network

    def split(self) -> Sequence[Tensor]:
        """Return each client's windows, without those that it holds out."""
        data, clients = self.experiment.data, self.experiment.clients
        if data.partition.name in windows.PIECES:
            own = self._texts()
            self.windows = windows.joined(own)
            ends = np.cumsum([len(part.starts) for part in own])
            parts = np.split(np.arange(ends[-1]), ends[:-1])
        else:
            self.windows = windows.cut(0, len(self.tokens), data.context)
            none = np.zeros(len(self.windows.starts), np.int64)  # labels, which none looks at
            parts = partition(data.partition, none, clients, self.experiment.seed)
        return without_holdout(parts, data.holdout)

    def _texts(self) -> list[Windows]:
        """Divide the text among the clients; return the windows of each."""
        data, seed = self.experiment.data, self.experiment.seed
        clients, total = self.experiment.clients, len(self.tokens)
        order, lengths = windows.PIECES[data.partition.name](self.sizes, clients, seed)
        documents = self.tokens.split(self.sizes.tolist())
        # a client's documents follow each other from here on
        self.tokens, self.sizes = torch.cat([documents[n] for n in order]), self.sizes[order]
        columns = 1
        if data.sampling == "fixed":
            columns = self.experiment.schedule.batch_size or 1
        for client, length in enumerate(lengths):
            if length < 2 * columns:
                why, remedy = "", "another seed or data.partition.name"
                if columns > 1:
                    why = ", two for each column of a batch (data.sampling=fixed)"
                    remedy = "a smaller schedule.batch_size"
                raise ConfigError(
                    "clients",
                    f"client {client} of {clients} would have {length} of the {total} tokens, and "
                    f"it needs {2 * columns}{why}; use fewer clients, or {remedy}",
                )
        ends = np.cumsum(lengths)
        return [
            windows.cut(end - length, end, data.context, columns)
            for end, length in zip(ends, lengths, strict=True)
        ]

    def hold(self, parts: Sequence[Tensor], clients: Sequence[int]) -> Sequence[Tensor]:
        """Keep only the tokens of these clients' windows."""
        found, parts = held(self.experiment.data.partition, parts, clients)
        if found is None:
            return parts
        starts, lengths = (column[found.numpy()] for column in self.windows)
        edges = np.zeros(len(self.tokens) + 1, np.int64)  # +1 where a window begins, -1 after it
        np.add.at(edges, starts, 1)
        np.add.at(edges, starts + lengths + 1, -1)
        kept = np.cumsum(edges[:-1]) > 0
        self.tokens = self.tokens[torch.from_numpy(kept)]
        self.windows = Windows((np.cumsum(kept) - 1)[starts], lengths)
        return parts

    def batches(
        self, places: Iterable[Tensor], stream: torch.Generator | None, *, training: bool = True
    ) -> Iterator[Batch]:
        """Yield inputs and targets, each (B, T) int64, and how many targets are tokens.

        T is less if all windows are shorter. After the end of a window targets are IGNORED.
        """
        for chosen in places:
            yield self._batch(self.tokens, self.windows, chosen.numpy())

    def test(self, batch_size: int) -> Iterator[Batch]:
        """Return this rank's share of the test text's windows, in batches."""
        mine = np.arange(len(self.test_windows.starts))[self.share]
        for begin in range(0, len(mine), batch_size):
            chosen = mine[begin : begin + batch_size]
            yield self._batch(self.test_tokens, self.test_windows, chosen)

    def _batch(self, tokens: Tensor, table: Windows, chosen: windows.Numbers) -> Batch:
        starts = torch.from_numpy(table.starts[chosen])[:, None]
        lengths = torch.from_numpy(table.lengths[chosen])[:, None]
        steps = torch.arange(int(lengths.max()) + 1)
        found = tokens[(starts + steps).clamp_(max=len(tokens) - 1)].long()  # (B, T + 1)
        x, y, after = found[:, :-1], found[:, 1:], steps[:-1] >= lengths
        x, y = x.masked_fill(after, 0), y.masked_fill(after, IGNORED)
        return self._sent(x), self._sent(y), int(lengths.sum())

    def _sent(self, values: Tensor) -> Tensor:
        if self.device.type == "cuda":  # only what is pinned is copied while work goes on
            values = values.pin_memory()
        return values.to(self.device, non_blocking=True)

    def inputs(self, x: Tensor) -> Tensor:
        """Return the tokens themselves, (B, T)."""
        return x

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """Return the mean cross-entropy over all tokens of (B, T, V), ()."""
        return cross_entropy(output.flatten(0, 1), y.flatten(), ignore_index=IGNORED)

    def units(self, y: Tensor) -> Tensor:
        """Return the number of tokens that are predicted, ()."""
        return (y != IGNORED).sum()

    def score(self, output: Tensor, y: Tensor) -> Tensor:
        """Return (2,) float64: next tokens that the model ranks first, and the sum of losses."""
        right = (output.argmax(2) == y).sum()
        losses = cross_entropy(
            output.flatten(0, 1), y.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return torch.stack([right.double(), losses.double()])


def _joined(documents: Sequence[Ids]) -> Tensor:
    return torch.from_numpy(np.concatenate([np.empty(0, np.int32), *documents]))


def _refuse_too_short(tokens: Tensor, what: str, *, divided: bool) -> None:
    if len(tokens) < 2:
        by_share = divided and what == "test text"
        remedy = "text, or another data.test_share" if divided else what
        raise ConfigError(
            "data.test_share" if by_share else "data.path",
            f"the {what} has {len(tokens)} tokens, and a prediction needs 2; give more {remedy}",
        )
