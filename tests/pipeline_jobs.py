"""What tests ask the ranks of pipelines to do: gradients, whole runs, and what they send."""

import logging
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import save
from torch import Tensor, nn

from tests.checkpoint_jobs import through_and_resumed
from tests.jobs import CPU, experiment_run, lived
from trainer.__main__ import named
from trainer.config.errors import ConfigError, Diverged
from trainer.config.models import MODELS, Network
from trainer.config.parallel import Parallel
from trainer.engine import checkpoint
from trainer.engine.evaluate import evaluate, load_agreed, reconcile
from trainer.engine.parts import RankState
from trainer.engine.round import run_round
from trainer.engine.state import whole_tensors
from trainer.exchange.mesh import Mesh, mesh
from trainer.storage.folder import Folder
from trainer.workers.cut import cut
from trainer.workers.pipeline import Pipeline
from trainer.workers.single import Single

IGNORED = -100  # a target that is no prediction
LAST: dict[int, Mesh] = {}  # by stages: process groups are created once per process


class Toy:
    """A task without data: the mean cross-entropy of the last dimension."""

    random = False

    def inputs(self, x: Tensor) -> Tensor:
        return x

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output.flatten(0, -2), y.flatten(), ignore_index=IGNORED)

    def units(self, y: Tensor) -> Tensor:
        return (y != IGNORED).sum()

    def score(self, output: Tensor, y: Tensor) -> Tensor:
        right = (output.argmax(-1) == y).sum()
        return torch.stack([right.double(), self.loss(output, y).double() * self.units(y)])


def network(name: str) -> nn.Sequential:
    """Networks with many layers of different kinds, and of different sizes."""
    if name == "mlp":
        widths = [8, 16, 8, 12, 8, 8, 6, 16, 5]
        pairs = pairwise(widths)
        return nn.Sequential(*(m for a, b in pairs for m in (nn.Linear(a, b), nn.Tanh())))
    if name == "cnn":
        convolutions = [m for _ in range(5) for m in (nn.Conv2d(3, 3, 3, padding=1), nn.SiLU())]
        norms = [nn.GroupNorm(1, 3), nn.AvgPool2d(2), nn.Flatten()]
        return nn.Sequential(*convolutions, *norms, nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 5))
    if name == "encoder":
        encoders = [nn.TransformerEncoderLayer(8, 2, 8, 0.5, batch_first=True) for _ in range(3)]
        norms = [nn.Flatten(0, 1), nn.BatchNorm1d(8), nn.Unflatten(0, (-1, 7))]
        return nn.Sequential(nn.Embedding(11, 8), *encoders, *norms, nn.Linear(8, 5))
    blocks = [m for _ in range(3) for m in (nn.Linear(8, 8), nn.LayerNorm(8), Turned())]
    return nn.Sequential(nn.Embedding(11, 8), *blocks, nn.Linear(8, 5))


class Turned(nn.Module):
    """A layer whose output, and whose input's gradient, are not contiguous."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(0, 1).flip(0).transpose(0, 1)


def batch(name: str, rows: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets, of tokens with an uneven number of predictions in each row."""
    draws = torch.Generator().manual_seed(rows)
    if name == "mlp":
        return torch.randn(rows, 8, generator=draws), torch.randint(5, (rows,), generator=draws)
    if name == "cnn":
        x = torch.randn(rows, 3, 4, 4, generator=draws)
        return x, torch.randint(5, (rows,), generator=draws)
    x = torch.randint(11, (rows, 7), generator=draws)
    y = torch.randint(5, (rows, 7), generator=draws)
    for row in range(rows):
        y[row, : row % 6] = IGNORED
    return x, y


def groups(stages: int) -> Mesh:
    """This process's mesh with so many stages."""
    if stages not in LAST:
        LAST[stages] = mesh(CPU, stages, 30)
    return LAST[stages]


def workers(name: str, parallel: dict[str, Any]) -> tuple[Pipeline, Single]:
    """A stage of a network, and the whole of it."""
    settings = Parallel(**parallel)
    torch.manual_seed(3)
    whole = network(name)
    torch.manual_seed(3)
    model = network(name)
    line = groups(settings.pipeline).line
    return (
        Pipeline(model, cut(model, settings), Toy(), line, settings),
        Single(whole.train(), Toy()),
    )


def gradients(name: str, cases: list[tuple[dict[str, Any], int]]) -> list[dict[str, Any]]:
    """For each case, settings and rows of a batch: how far a stage is from the whole network."""
    found = []
    for parallel, rows in cases:
        staged, single = workers(name, parallel)
        x, y = batch(name, rows)
        for _ in range(2):  # buffers are used again
            loss = staged.gradient(x, y)
            whole = single.gradient(x, y)
        own = staged.layout.views(staged.grads)
        all_of_it = single.layout.views(single.grads)
        tests = [(x, y, int(Toy().units(y))), (x[:1], y[:1], int(Toy().units(y[:1])))]
        scores = staged.score(tests)
        found.append(
            {
                "apart": max(float((own[n] - all_of_it[n]).abs().max()) for n in own),
                "names": list(own),
                "parameters": len(all_of_it),
                "loss": abs(float(loss) - float(whole)) if staged.scores else float(loss),
                "scores": scores,
                "single": single.score(tests),
                "last": staged.scores,
                "total": float(staged.total(staged.grads.square().sum())),
                "square": float(single.grads.square().sum()),
            }
        )
    return found


def encoded(parallel: dict[str, Any]) -> dict[str, Any]:
    """Two equal gradients in bf16, and a test, of layers that compute otherwise in evaluation."""
    torch.manual_seed(3)
    model = network("encoder")
    settings = Parallel(**parallel)
    line = groups(settings.pipeline).line
    staged = Pipeline(model, cut(model, settings), Toy(), line, settings, bf16=True)
    x, y = batch("tokens", 12)
    grads = []
    for _ in range(2):  # the first has to find out what stages send
        staged.buffers.zero_()
        torch.manual_seed(4)
        staged.gradient(x, y)
        grads.append((staged.grads.clone(), staged.buffers.clone()))
    return {
        "same": all(torch.equal(one, other) for one, other in zip(*grads, strict=True)),
        "moved": bool(staged.grads.any()),
        "scores": staged.score([(x, y, len(y))]),
    }


def without_memory(parallel: dict[str, Any]) -> str:
    """One gradient, for whose loss the last stage has no memory; what this rank says of it."""
    staged, _ = workers("mlp", parallel)
    x, y = batch("mlp", 12)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    staged.task.loss = loss
    try:
        staged.gradient(x, y)
    except RuntimeError as error:
        unsent = torch.zeros(len(x), staged.model[0].in_features)  # for which stage 0 waits
        dist.send(unsent, group=staged.line.ranks, group_dst=0)
        return f"{type(error).__name__}: {error}"
    return ""


def with_inputs(parallel: dict[str, Any]) -> bool:
    """Whether a stage makes inputs of what is stored, in training and in an evaluation."""
    staged, _ = workers("mlp", parallel)
    made = []
    staged.task.inputs = lambda x: made.append(x) or x
    x, y = batch("mlp", 12)
    staged.gradient(x, y)
    staged.score([(x, y, len(y))])
    return bool(made)


def of_many_shapes(parallel: dict[str, Any]) -> list[str]:
    """What is logged of batches of more shapes than there is room for, twice."""
    staged, _ = workers("mlp", parallel)
    told: list[str] = []
    watch = logging.Handler()
    watch.emit = lambda record: told.append(record.getMessage())
    logging.getLogger("fedctl").addHandler(watch)
    try:
        for rows in (*range(1, 19), *range(1, 19)):
            staged.gradient(*batch("mlp", rows))
    finally:
        logging.getLogger("fedctl").removeHandler(watch)
    return told


def many_steps(parallel: dict[str, Any], steps: int) -> float:
    """So many steps of gradient descent; the loss of the last one."""
    staged, _ = workers("mlp", parallel)
    x, y = batch("mlp", 12)
    for _ in range(steps):
        loss = staged.gradient(x, y)
        staged.params.sub_(staged.grads, alpha=0.05)
    return float(loss)


@contextmanager
def nothing_is_unpickled() -> Iterator[None]:
    """Objects that ranks send each other are pickled."""
    names = ("dumps", "loads", "Pickler", "Unpickler")
    kept = {name: getattr(pickle, name) for name in names}

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something is pickled")

    for name in names:
        setattr(pickle, name, refuse)
    lists = {name: getattr(dist, name) for name in ("send_object_list", "recv_object_list")}
    for name in lists:
        setattr(dist, name, refuse)
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(pickle, name, value)
        for name, value in lists.items():
            setattr(dist, name, value)


@contextmanager
def handed() -> Iterator[dict[str, int]]:
    """Counts what is handed to torch.distributed for another rank: tensors, and their bytes."""
    counted = {"bytes": 0, "messages": 0}
    isend = dist.isend

    def counting(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        counted["bytes"] += tensor.numel() * tensor.element_size()
        counted["messages"] += 1
        return isend(tensor, *args, **kwargs)

    # torch compares an operation with the function that it knows by this name
    dist.isend = dist.distributed_c10d.isend = counting
    try:
        yield counted
    finally:
        dist.isend = dist.distributed_c10d.isend = isend


def sent(parallel: dict[str, Any], steps: int) -> dict[str, int]:
    """What a stage hands over in so many steps, and in an evaluation, and what it has counted."""
    staged, _ = workers("mlp", parallel)
    wire = groups(parallel["pipeline"]).world.books.wire
    x, y = batch("mlp", 12)
    before = wire["pipeline"]
    with handed() as counted, nothing_is_unpickled():
        for _ in range(steps):
            staged.gradient(x, y)
        trained = dict(counted)
        staged.score([(x, y, len(y))])
    # For each schedule that is new, torch's stages send a vote of 4 bytes to each neighbour.
    neighbours = sum((at > 0) + (at < staged.count - 1) for at in staged.numbers)
    return {
        "counted": wire["pipeline"] - before,
        "handed": counted["bytes"] - 2 * 4 * neighbours,  # two schedules: with a loss, and without
        "messages": trained["messages"] - neighbours,
    }


# ------------------------------------------------------------------ runs


def with_network(
    tree: Mapping[str, Any],
    out: Path | None = None,
    name: str = "for_digits",
    edges: Sequence[int] = (),
) -> RankState:
    """A run of a network without kinks, and with enough layers for stages."""
    listed, MODELS["digits-cnn"] = MODELS["digits-cnn"], Network(f"tests.pipeline_jobs:{name}")
    try:
        return experiment_run(dict(tree), out, edges)
    finally:
        MODELS["digits-cnn"] = listed


def for_digits(classes: int, in_shape: tuple[int, int, int]) -> nn.Sequential:
    """A small network for 8x8 images."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.SiLU(), nn.AvgPool2d(2), nn.GroupNorm(2, 4),
        nn.Conv2d(4, 4, 3, padding=1), nn.SiLU(), nn.Flatten(), nn.Linear(64, 16), nn.Tanh(),
        nn.Linear(16, classes),
    )  # fmt: skip


def with_norm(classes: int, in_shape: tuple[int, int, int]) -> nn.Sequential:
    """The same with batch statistics, of the first stage only."""
    layers = for_digits(classes, in_shape)
    layers[3] = nn.BatchNorm2d(4)
    return layers


def with_dropout(classes: int, in_shape: tuple[int, int, int]) -> nn.Sequential:
    """The same, with dropout on several stages."""
    layers = for_digits(classes, in_shape)
    layers[2], layers[8] = nn.Sequential(nn.AvgPool2d(2), nn.Dropout(0.3)), nn.Dropout(0.3)
    return layers


class Masked(nn.Module):
    """A layer that begins with dropout, and keeps what that let through."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout, self.linear = nn.Dropout(0.5), nn.Linear(64, 64)
        self.masks: list[Any] = []

    def forward(self, x: Tensor) -> Tensor:
        mask = self.dropout(torch.ones_like(x))
        self.masks.append(mask.numpy().copy())
        output: Tensor = self.linear(x * mask)
        return output


def with_masks(classes: int, in_shape: tuple[int, int, int]) -> nn.Sequential:
    """Two layers that begin with dropout, over equal shapes."""
    return nn.Sequential(nn.Flatten(), Masked(), Masked(), nn.Linear(64, classes))


def masks(tree: dict[str, Any]) -> list[Any]:
    """What the dropout of this stage lets through in a round."""
    rank = with_network(tree, name="with_masks")
    run_round(rank, 1)
    (layer,) = (m for m in rank.parts.worker.model if isinstance(m, Masked))
    return layer.masks


def normalised(tree: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Train with BatchNorm; the whole network as it is evaluated, with its statistics."""
    rank = with_network(tree, name="with_norm")
    for number in range(1, rounds + 1):
        run_round(rank, number)
    result = evaluate(rank)
    model = whole_tensors(rank)
    return {
        "model": {name: tensor.double().numpy().copy() for name, tensor in model.items()},
        "accuracy": result.accuracy,
        "loss": result.loss,
        "dense": rank.ledger.tally.dense,
    }


def dropped(tree: dict[str, Any], rounds: int) -> Any:
    """Train with dropout on all stages; the end of this rank's part of the model."""
    rank = with_network(tree, name="with_dropout")
    for number in range(1, rounds + 1):
        run_round(rank, number)
    return rank.server.anchor.numpy().copy()


def how_it_ends(tree: dict[str, Any], folder: str) -> str:
    """The whole life of a run, in this process, of which something is wrong; what it says."""
    out = Path(folder)
    try:
        lived(with_network(tree, out, tree.pop("network", "for_digits")), out)
    except (ConfigError, Diverged) as error:
        return str(error)
    return ""


def ended(tree: dict[str, Any], folder: str) -> bool:
    """The whole life of a run, in this process; whether clients differ on this stage at its end."""
    rank = with_network(tree)
    lived(rank, Path(folder))
    return rank.parts.policy.drifted() is not None


def labels(tree: dict[str, Any]) -> dict[str, str]:
    """What this rank is called on /metrics."""
    return named(experiment_run(tree))


def assembled(tree: dict[str, Any]) -> dict[str, Any]:
    """How many tensors are assembled here, this stage's bytes, and the most that come at once."""
    rank = with_network(tree)
    line, received = rank.parts.line, [0]
    send = line.all_to_all

    def watched(boxes: Any, sizes: list[int], kinds: Any) -> Any:
        received.append(sum(sizes))
        return send(boxes, sizes, kinds)

    line.all_to_all = watched
    model = whole_tensors(rank)
    own = len(save(dict(rank.parts.worker.tensors())))
    return {"names": len(model), "own": own, "received": max(received)}


def notices(tree: dict[str, Any]) -> list[str]:
    """What a person is told when a run starts."""
    return experiment_run(tree).notices


def scored(tree: dict[str, Any]) -> tuple[float, float]:
    """Accuracy and loss of a run's first model."""
    result = evaluate(experiment_run(tree))
    return result.accuracy, result.loss


def trained(tree: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Train; the whole model where it is assembled, and what this rank's part of it came to."""
    rank = with_network(tree)
    stops = [run_round(rank, number).stop for number in range(1, rounds + 1)]
    mean = evaluate(rank)
    own = rank.server.anchor.numpy().copy()
    controls = rank.server.state.get("control")
    kept = [r.get("algorithm", {}).get("control") for _, r in rank.store.mine()]
    frozen = getattr(rank.parts.policy, "frozen", torch.zeros(0, dtype=torch.bool))
    reconcile(rank)
    load_agreed(rank)
    model = whole_tensors(rank) if rank.parts.group.rank == 0 else {}
    rank.ledger.settle()
    return {
        "model": {name: tensor.numpy().copy() for name, tensor in model.items()},
        "own": own,
        "stage": rank.parts.line.rank,
        "stops": stops,
        "accuracy": mean.accuracy,
        "loss": mean.loss,
        "train_loss": mean.train_loss,
        "control": None if controls is None else controls.double().numpy().copy(),
        "controls": [c.double().numpy().copy() for c in kept if c is not None],
        "frozen": frozen.numpy().copy(),
        "payload": dict(rank.ledger.total.payload),
        "wire": dict(rank.ledger.total.wire),
        "formed": rank.ledger.total.formed,
        "dense": rank.ledger.tally.dense,
        "samples": list(rank.ledger.rank_samples),
        "passes": rank.ledger.all_passes,
    }


def told_to_stop(tree: dict[str, Any], which: int) -> list[bool]:
    """In which of three rounds a rank knows that one was told to stop, in the second."""
    rank = with_network(tree)
    asked = rank.parts.world.rank == which
    return [run_round(rank, n, lambda n=n: asked and n == 2).stop for n in (1, 2, 3)]


def resumed(tree: dict[str, Any], folder: str) -> list[str]:
    """Save after 3 rounds of 6, resume there in a fresh run; what differs at the end."""
    differing: list[str] = through_and_resumed(with_network, tree, folder, rounds=6)["differing"]
    return differing


def saved_then_resumed(before: dict[str, Any] | None, after: dict[str, Any], folder: str) -> str:
    """Save after a round of `before`, if this rank is part of it; how resuming `after` ends."""
    if before is not None:
        rank = with_network(before)
        run_round(rank, 1)
        rank.ledger.settle()
        checkpoint.save(rank, 1, Folder(Path(folder)))
        return ""
    place = Folder(Path(folder))
    rank = with_network(after, edges=checkpoint.edges(place))
    try:
        done, _ = checkpoint.restore(rank, place)
    except ConfigError as error:
        return str(error)
    run_round(rank, done + 1)
    return f"round {done + 1}, {np.isfinite(rank.server.anchor.numpy()).all()}"
