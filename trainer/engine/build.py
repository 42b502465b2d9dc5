"""Assembly of an experiment into objects; no other module checks which part was chosen.

The class that implements a choice is named at the choice itself (trainer/config), as an import
path.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, nn

from trainer.algorithms.algorithm import Algorithm
from trainer.algorithms.optimizer import LocalOptimizer
from trainer.config.communication import Full
from trainer.config.errors import ConfigError
from trainer.config.parts import resolve
from trainer.config.schema import Experiment
from trainer.engine import nodes
from trainer.engine.clock import Clock
from trainer.engine.cohort import Clients
from trainer.engine.ledger import Ledger
from trainer.engine.parts import Parts, RankState, refuse
from trainer.engine.store import Store
from trainer.exchange.mesh import Mesh, aside
from trainer.exchange.mesh import mesh as make_mesh
from trainer.exchange.overlap import Overlap
from trainer.exchange.policies.policy import Policy
from trainer.exchange.reductions.formats import Subject
from trainer.exchange.reductions.reduction import Reduction
from trainer.exchange.transforms.error_feedback import ErrorFeedback, StepAhead
from trainer.exchange.transforms.transform import Transform
from trainer.layout import Layout
from trainer.models import weights
from trainer.tasks.task import Task
from trainer.turn import Server
from trainer.workers.cut import cut, seconds
from trainer.workers.pipeline import microbatches
from trainer.workers.single import Single
from trainer.workers.worker import Worker

DOWNLOAD = timedelta(hours=6)  # time limit for rank 0 to download and load the data
MEBIBYTE = 2**20


def build(
    experiment: Experiment,
    device: torch.device,
    out: Path | None = None,
    edges: Sequence[int] = (),
) -> RankState:
    """Load the data, create the model, assemble a rank; all ranks start from the same weights.

    out: the run folder, for the records of clients beyond experiment.client_memory; edges: where
    rank 0's checkpoint says that the model was cut into stages; empty: to be decided.
    """
    mesh = make_mesh(device, experiment.parallel.pipeline, experiment.cluster.timeout)
    group = mesh.group
    task = _load_in_turn(experiment, mesh)
    owned = range(experiment.clients)
    if experiment.placement == "fixed":
        owned = range(group.rank, experiment.clients, group.size)
    samples = task.hold(task.split(), owned)
    worker = _worker(experiment, task, mesh, edges, samples[owned[0]])
    rank = assemble(experiment, task, worker, mesh, samples, out)
    _tell_of_microbatches(rank)
    return rank


def assemble(
    experiment: Experiment,
    task: Task,
    worker: Worker,
    mesh: Mesh,
    samples: Sequence[Tensor],
    out: Path | None = None,
) -> RankState:
    """Assemble a rank around a task and a worker; samples: of each client, by place."""
    group, anchor = mesh.group, worker.params.clone()
    algorithm = _algorithm(experiment, worker.layout, anchor)
    chain, policy = _selection(experiment, algorithm, worker.layout, group.device)
    policy.arrange(worker.layout, worker.whole.layout)
    code, once = _codes(experiment, worker, thin=any(transform.thins for transform in chain))
    parts = Parts(
        task=task,
        worker=worker,
        algorithm=algorithm,
        policy=policy,
        chain=chain,
        reduction=code,
        once=once,
        mesh=mesh,
    )
    refuse(parts)
    folder = out and out / "clients" / f"rank-{mesh.world.rank}"
    budget = experiment.client_memory
    rank = RankState(
        experiment=experiment,
        parts=parts,
        server=Server(
            anchor,
            algorithm.server_state(anchor),
            worker.buffers.clone(),
            total=worker.total if mesh.pipelined else None,
        ),
        clients=Clients(experiment, samples, algorithm.weight, group.size, task.home),
        store=Store(
            group,
            folder,
            None if budget is None else budget * MEBIBYTE,
            empty=not parts.keep and experiment.model.buffers == "mean",
        ),
        clock=Clock(group.device),
        ledger=Ledger(mesh),
        overlap=_overlap(experiment, policy, mesh, worker),
    )
    rank.node = nodes.node(experiment, mesh, rank.clients.weights)
    return rank


def _tell_of_microbatches(rank: RankState) -> None:
    """Have a person told, by rank 0, if batches have fewer microbatches than were asked for."""
    settings, rows = rank.experiment.parallel, rank.experiment.schedule.batch_size
    if not rank.parts.mesh.pipelined or rows is None or rank.parts.world.rank:
        return
    asked, found = settings.microbatches, microbatches(rows, settings)
    if found < asked:
        below = rows // asked * asked
        near = f"{below} or {below + asked}" if below else f"{asked}"
        plural = "microbatches" if found > 1 else "microbatch"
        rank.notice(
            f"batches of {rows} have {found} {plural}, not {asked}; set schedule.batch_size={near}"
        )


def _worker(
    experiment: Experiment, task: Task, mesh: Mesh, edges: Sequence[int], places: Tensor
) -> Worker:
    """Create the whole model on the CPU, as every rank does, and the worker of this rank's part.

    places: samples on which the costs of layers may be measured.
    """
    torch.manual_seed(experiment.seed)
    model = task.model()
    if experiment.model.weights is not None:
        weights.load(model, experiment.model.weights)
        values = [t.detach().flatten() for t in model.state_dict().values() if t.numel()]
        if not mesh.world.all_equal(*values):
            raise ConfigError("model.weights", "ranks read different files; give all the same file")
    bf16 = experiment.model.precision == "bf16"
    if not mesh.pipelined:
        return Single(model.to(mesh.world.device).train(), task, bf16=bf16)
    settings = experiment.parallel
    if not isinstance(model, nn.Sequential):
        raise ConfigError(
            "parallel.pipeline", f"{experiment.model.name} is no sequence of layers; set it to 1"
        )
    found = cut(model, settings)
    by_hand = settings.layers is not None
    if not by_hand and len(edges) == len(found) and edges[-1] == len(model):
        found = list(edges)
    elif not by_hand and settings.split == "cost" and mesh.world.rank == 0:
        rows = experiment.schedule.batch_size or len(places)
        rows //= microbatches(rows, settings)
        ((x, *_),) = task.batches([places[:rows]], None, training=False)
        found = cut(model, settings, seconds(model, task.inputs(x), bf16=bf16))
    told = [float(edge) * (mesh.world.rank == 0) for edge in found]
    edges = [int(edge) for edge in mesh.world.sum_numbers(told, "control")]
    kind: Callable[..., Worker] = resolve(settings.implementation)
    return kind(model, edges, task, mesh.line, settings, bf16=bf16)


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
    experiment: Experiment, algorithm: Algorithm, layout: Layout, device: torch.device
) -> tuple[tuple[Transform, ...], Policy]:
    """Create what decides which values travel: one policy for all, or a transform per client."""
    chosen = experiment.sync
    kind = resolve(chosen.implementation)
    chain: list[Transform] = []
    if issubclass(kind, Transform):
        chain.append(kind(chosen))
        policy = Policy(Full(), layout.size, device, experiment.seed, layout)
    else:
        policy = kind(chosen, layout.size, device, experiment.seed, layout)
    accounted = any(transform.accounts for transform in chain)
    something = any(vector.adds_up for vector in algorithm.vectors)
    if getattr(experiment.codec, "error_feedback", False) and something and not accounted:
        ahead = getattr(experiment.codec, "step_ahead", False)
        chain.append(StepAhead() if ahead else ErrorFeedback())
    return tuple(chain), policy


def _codes(experiment: Experiment, worker: Worker, *, thin: bool) -> tuple[Reduction, Reduction]:
    """Create the reduction of clients' messages, and that of vectors that are used one time."""
    codec = experiment.codec
    subject = Subject(worker.layout, worker.params.dtype, experiment.seed, thin)
    create: Callable[..., Reduction] = resolve(codec.implementation)
    once: Callable[..., Reduction] = resolve(codec.once or codec.implementation)
    return create(codec, subject), once(codec, replace(subject, sparse=False))


def _overlap(experiment: Experiment, policy: Policy, mesh: Mesh, worker: Worker) -> Overlap | None:
    if not policy.overlap:
        return None
    if len(worker.buffers) and experiment.model.buffers == "mean":
        raise ConfigError(
            "model.buffers",
            "with sync.overlap the mean of batch statistics would come a round late, and clients "
            "would go on from that of the round before; set model.buffers=local",
        )
    return Overlap(policy.overlap, aside(mesh, experiment.cluster.timeout))


def _load_in_turn(experiment: Experiment, mesh: Mesh) -> Task:
    """Load the data on rank 0 first, since it may have to download what the others then find."""
    world, group = mesh.world, mesh.group
    kind: Callable[..., Task] = resolve(experiment.data.task)

    def loaded(*, download: bool) -> Task:
        return kind(experiment, group.device, group.rank, group.size, download=download)

    if world.rank == 0:
        task = loaded(download=True)
        world.barrier(DOWNLOAD)
    else:
        world.barrier(DOWNLOAD)
        task = loaded(download=False)
    if task.alike and not world.all_equal(_digits(task.fingerprint)):
        raise ConfigError(
            "data.name",
            f"ranks read different data for {experiment.data.name}; give all the same files, and "
            "the same versions of Python and of the trainer",
        )
    return task


def _digits(fingerprint: str) -> Tensor:
    return torch.tensor(list(bytes.fromhex(fingerprint)))
