"""All state of a rank between two rounds, as a checkpoint holds it, also for other ranks.

It has three parts: what all ranks agree on, what only one rank has, and each client's record (which
the store writes). Random streams need no saving: each is a function of its key, and so is a
sampler's position in its data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from trainer.engine.parts import RankState

State = dict[str, Any]


def agreed(rank: RankState) -> State:
    """Return the state that is the same on every rank, without the model itself."""
    parts = rank.parts
    return {
        "server": rank.server.state,
        "policy": parts.policy.state(),
        "chain": [transform.state() for transform in parts.chain],
        "reduction": parts.reduction.state(),
        "taken": rank.clients.taken,
        "home": rank.store.home,
        "accuracy": rank.accuracy,
        "perplexity": rank.perplexity,
        "ledger": rank.ledger.state(),
        "overlap": rank.overlap.state() if rank.overlap else {},
    }


def whole_tensors(rank: RankState) -> Mapping[str, Tensor]:
    """Return all stages' tensors of the network that is loaded, by name, on the line's first rank.

    Every rank of the line calls it; on the others there is nothing.
    """
    tensors, line = rank.parts.worker.tensors(), rank.parts.line
    if line.size == 1:
        return tensors
    own = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    whole: dict[str, Tensor] = {}
    for turn in range(line.size):  # one at a time, since the whole model may not fit a device
        for data in line.to_first(own if line.rank == turn else b"", "control"):
            whole |= load(data) if data else {}
    return whole


def own(rank: RankState) -> State:
    """Return the state that only this rank has."""
    return {
        "worker": rank.parts.worker.state(),
        "books": rank.parts.world.books.state(),
        "tally": asdict(rank.ledger.own),
        "seconds": rank.clock.seconds,
        "hidden": rank.clock.hidden,
        "loss": rank.loss.sum,
        "samples": rank.loss.samples,
    }


def load_agreed(rank: RankState, state: State) -> None:
    """Restore the result of `agreed`; the number of ranks may be another."""
    parts, server = rank.parts, rank.server
    for name, vector in server.state.items():
        if name in state["server"]:
            vector.copy_(state["server"][name])
        else:  # momentum may be on since then
            rank.notice(f"the checkpoint has no {name} of the server, so it starts anew")
    parts.policy.load(state["policy"])
    for transform, saved in zip(parts.chain, state["chain"], strict=True):
        transform.load(saved)
    parts.reduction.load(state["reduction"])
    rank.clients.taken = state["taken"]
    rank.accuracy, rank.perplexity = state["accuracy"], state["perplexity"]
    rank.store.home = {client: homed(rank, client, at) for client, at in state["home"].items()}
    ledger, size = state["ledger"], parts.group.size
    for name in ("rank_samples", "idle"):
        ledger[name] = _folded(ledger[name], size)
    rank.ledger.load(ledger)
    if rank.overlap:
        rank.overlap.load(state.get("overlap", {}))


def homed(rank: RankState, client: int, at: int) -> int:
    """Return the rank that has a client's record from now on; at: the one that had it."""
    chosen = client if rank.experiment.placement == "fixed" else at
    return chosen % rank.parts.group.size


def _folded(values: Sequence[Any], size: int) -> list[Any]:
    """Return the numbers of W ranks for `size` ranks, with the same sum."""
    return [sum(values[rank::size]) for rank in range(size)]


def load_own(rank: RankState, states: Sequence[State]) -> None:
    """Restore the results of `own`: this rank's, and those of ranks that no longer exist.

    A rank that did not exist then is given none; its counts begin at zero.
    """
    parts, clock, loss = rank.parts, rank.clock, rank.loss
    for state in states:
        _add(parts.group.books.payload, state["books"]["payload"])
        _add(parts.group.books.wire, state["books"]["wire"])
        parts.group.books.formed += state["books"]["formed"]
        rank.ledger.own.include(state["tally"])
        loss.sum += state["loss"].to(loss.sum)
        loss.samples += state["samples"]
    for state in states[:1]:
        clock.seconds.update(state["seconds"])
        clock.hidden += state.get("hidden", 0.0)  # of an older checkpoint: nothing was
        parts.worker.load(state["worker"])


def _add(counts: dict[str, int], more: dict[str, int]) -> None:
    for kind, count in more.items():
        counts[kind] += count
