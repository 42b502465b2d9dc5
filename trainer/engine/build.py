"""Assembly of an experiment into objects; no other module checks which part was chosen.

The class that implements a choice is named at the choice itself (trainer/config), as an import
path.
"""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor

from trainer.algorithms.algorithm import Algorithm
from trainer.algorithms.optimizer import LocalOptimizer
from trainer.config.communication import Full
from trainer.config.errors import ConfigError
from trainer.config.parts import resolve
from trainer.config.schema import Experiment
from trainer.engine.clock import Clock
from trainer.engine.cohort import Clients
from trainer.engine.ledger import Ledger
from trainer.engine.parts import Parts, RankState, refuse
from trainer.engine.store import Store
from trainer.exchange.books import Books
from trainer.exchange.group import Group
from trainer.exchange.policies.policy import Policy
from trainer.exchange.reductions.reduction import Reduction
from trainer.exchange.transforms.error_feedback import ErrorFeedback
from trainer.exchange.transforms.transform import Transform
from trainer.layout import Layout
from trainer.models import weights
from trainer.tasks.images import Images
from trainer.turn import Server
from trainer.workers.single import Single

DOWNLOAD = timedelta(hours=6)  # time limit for rank 0 to download and load the data
MEBIBYTE = 2**20


def build(experiment: Experiment, device: torch.device, out: Path | None = None) -> RankState:
    """Load the data, create the model, assemble a rank; all ranks start from the same weights.

    out: the run folder, for the records of clients beyond experiment.client_memory.
    """
    group = Group(Books(), device)
    task = _load_in_turn(experiment, group)
    torch.manual_seed(experiment.seed)
    model = task.model()
    if experiment.model.weights is not None:
        weights.load(model, experiment.model.weights)
    worker = Single(model.to(device).train(), task, bf16=experiment.model.precision == "bf16")
    anchor = worker.params.clone()
    if experiment.model.weights is not None and not group.all_equal(anchor, worker.buffers):
        raise ConfigError("model.weights", "ranks read different files; give all the same file")
    algorithm = _algorithm(experiment, worker.layout, anchor)
    chain, policy = _selection(experiment, algorithm, len(anchor), device)
    code: Callable[..., Reduction] = resolve(experiment.codec.implementation)
    thin = any(transform.thins for transform in chain)
    parts = Parts(
        task=task,
        worker=worker,
        algorithm=algorithm,
        policy=policy,
        chain=chain,
        reduction=code(experiment.codec, anchor.dtype, sparse=thin),
        once=code(experiment.codec, anchor.dtype, sparse=False),
        group=group,
    )
    refuse(parts)
    samples = task.split()
    owned = range(experiment.clients)
    if experiment.placement == "fixed":
        owned = range(group.rank, experiment.clients, group.size)
    samples = task.hold(samples, owned)
    folder = out and out / "clients" / f"rank-{group.rank}"
    budget = experiment.client_memory
    return RankState(
        experiment=experiment,
        parts=parts,
        server=Server(anchor, algorithm.server_state(anchor), worker.buffers.clone()),
        clients=Clients(experiment, samples, algorithm.weight, group.size, task.home),
        store=Store(
            group,
            folder,
            None if budget is None else budget * MEBIBYTE,
            empty=not parts.keep and experiment.model.buffers == "mean",
        ),
        clock=Clock(device),
        ledger=Ledger(group),
    )


def _algorithm(experiment: Experiment, layout: Layout, anchor: Tensor) -> Algorithm:
    optimizer = experiment.optimizer
    decay = None
    if optimizer.weight_decay and not optimizer.decay_norm_and_bias:
        # no decay on vectors, which are biases and the factors of norms
        decayed = [torch.full((p.size,), float(len(p.shape) > 1)) for p in layout.pieces]
        decay = torch.cat(decayed).to(anchor).mul_(optimizer.weight_decay)
    local: LocalOptimizer = resolve(optimizer.implementation)(optimizer, decay)
    chosen = experiment.algorithm
    algorithm: Algorithm = resolve(chosen.implementation)(chosen, local)
    return algorithm


def _selection(
    experiment: Experiment, algorithm: Algorithm, size: int, device: torch.device
) -> tuple[tuple[Transform, ...], Policy]:
    """Create what decides which values travel: one policy for all, or a transform per client."""
    chosen = experiment.sync
    kind = resolve(chosen.implementation)
    chain: list[Transform] = []
    if issubclass(kind, Transform):
        chain.append(kind(chosen))
        policy = Policy(Full(), size, device, experiment.seed)
    else:
        policy = kind(chosen, size, device, experiment.seed)
    accounted = any(transform.accounts for transform in chain)
    something = any(vector.adds_up for vector in algorithm.vectors)
    if getattr(experiment.codec, "error_feedback", False) and something and not accounted:
        chain.append(ErrorFeedback())
    return tuple(chain), policy


def _load_in_turn(experiment: Experiment, group: Group) -> Images:
    """Load the data on rank 0 first, since it may have to download what the others then find."""

    def loaded(*, download: bool) -> Images:
        return Images(experiment, group.device, group.rank, group.size, download=download)

    if group.rank == 0:
        task = loaded(download=True)
        group.barrier(DOWNLOAD)
        return task
    group.barrier(DOWNLOAD)
    return loaded(download=False)
