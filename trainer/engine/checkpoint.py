"""Saved state: everything that a run needs to resume as if it had never stopped.

When to save is decided in plan.py and loop.py. A checkpoint is a folder, renamed into place once it
is complete. It has three parts: the state that all ranks agree on (rank 0 writes it), each client's
record, and the state of each rank alone. Random streams need no saving: each is a function of its
key, and so is a sampler's position in its data.
"""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from trainer.config.errors import ConfigError, EnvironmentFault
from trainer.engine.parts import RankState
from trainer.files import write_atomically

FORMAT = 2  # of the folder; it changes with each change of the layout
CLIENTS = "clients"  # records, a safetensors file each


def save(rank: RankState, number: int, folder: Path) -> None:
    """Save the state after round `number`; every rank calls it."""
    group = rank.parts.group
    assert group.all_equal(rank.server.anchor), "ranks hold different agreed models; this is a bug"
    partial, final = folder / "partial", folder / f"round-{number:06d}"
    if group.rank == 0:
        shutil.rmtree(partial, ignore_errors=True)
        (partial / CLIENTS).mkdir(parents=True)
    group.barrier()
    if not partial.is_dir():
        raise EnvironmentFault(
            f"{folder} is not shared: rank {group.rank} does not see the folder that rank 0 "
            "created; give all ranks one volume that many nodes can write to (ReadWriteMany)"
        )
    if group.rank == 0:
        _write(partial / "agreed.pt", agreed(rank, number))
    records = {
        client: rank.store.write(client, partial / CLIENTS / f"{client}.safetensors")
        for client in rank.store.clients
    }
    _write(partial / f"rank-{group.rank}.pt", own(rank) | {"clients": records})
    group.barrier()
    if group.rank == 0:
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        write_atomically(
            folder / "latest.json", json.dumps({"round": number, "folder": final.name})
        )
        for old in sorted(folder.glob("round-*"))[: -rank.experiment.checkpoint.keep]:
            shutil.rmtree(old)
    group.barrier()


def forget(folder: Path) -> None:
    """Remove the checkpoints of an earlier run in the same folder."""
    shutil.rmtree(folder, ignore_errors=True)


def restore(rank: RankState, folder: Path) -> int:
    """Load the latest complete checkpoint; return its round, 0 if there is none."""
    if not (folder / "latest.json").exists():
        return 0
    latest = folder / json.loads((folder / "latest.json").read_text())["folder"]
    group = rank.parts.group
    if not (latest / "agreed.pt").exists():
        raise ConfigError(
            "--resume", f"{latest} was saved by another version of fedctl; start a new run instead"
        )
    state = _read(latest / "agreed.pt", rank)
    expected = (FORMAT, rank.experiment.digest(), group.size)
    if (state["format"], state["digest"], state["ranks"]) != expected:
        raise ConfigError(
            "--resume",
            f"{latest} belongs to experiment {state['digest']} on {state['ranks']} ranks, not to "
            f"{rank.experiment.digest()} on {group.size}; start a new run instead",
        )
    path = latest / f"rank-{group.rank}.pt"
    if not path.exists():
        raise ConfigError("--resume", f"{path} is missing; the checkpoint was made by fewer ranks")
    mine = _read(path, rank)
    _load(rank, state, mine)
    for client, digest in mine["clients"].items():
        record = latest / CLIENTS / f"{client}.safetensors"
        try:
            rank.store.read(client, record, digest)
        except Exception as error:  # as with the other files
            what = "damaged" if record.exists() else "missing"
            raise EnvironmentFault(f"{record} is {what}; start a new run") from error
        rank.store.trim()
    return int(state["round"])


def _write(path: Path, state: dict[str, Any]) -> None:
    with path.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path, rank: RankState) -> dict[str, Any]:
    device = rank.server.anchor.device
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # which exception a damaged file raises depends on the damage
        raise EnvironmentFault(f"{path} is damaged; start a new run") from error
    return state


def agreed(rank: RankState, number: int) -> dict[str, Any]:
    """Return the state that is the same on every rank."""
    parts, server = rank.parts, rank.server
    return {
        "format": FORMAT,
        "round": number,
        "digest": rank.experiment.digest(),
        "ranks": parts.group.size,
        "anchor": server.anchor,
        "buffers": server.buffers,
        "server": server.state,
        "policy": parts.policy.state(),
        "chain": [transform.state() for transform in parts.chain],
        "taken": rank.clients.taken,
        "home": rank.store.home,
        "ledger": rank.ledger.state(),
    }


def own(rank: RankState) -> dict[str, Any]:
    """Return the state that only this rank has."""
    return {
        "worker": rank.parts.worker.state(),
        "reductions": [rank.parts.reduction.state(), rank.parts.once.state()],
        "books": rank.parts.group.books.state(),
        "tally": asdict(rank.ledger.own),
        "seconds": rank.clock.seconds,
        "loss": rank.loss.sum,
        "samples": rank.loss.samples,
    }


def _load(rank: RankState, state: dict[str, Any], mine: dict[str, Any]) -> None:
    parts, server = rank.parts, rank.server
    server.anchor.copy_(state["anchor"])
    server.buffers.copy_(state["buffers"])
    for name, vector in state["server"].items():
        server.state[name].copy_(vector)
    parts.policy.load(state["policy"])
    for transform, saved in zip(parts.chain, state["chain"], strict=True):
        transform.load(saved)
    rank.clients.taken, rank.store.home = state["taken"], state["home"]
    rank.ledger.load(state["ledger"], mine["tally"])
    parts.worker.load(mine["worker"])
    for reduction, saved in zip((parts.reduction, parts.once), mine["reductions"], strict=True):
        reduction.load(saved)
    parts.group.books.load(mine["books"])
    rank.clock.seconds.update(mine["seconds"])
    rank.loss.sum.copy_(mine["loss"])
    rank.loss.samples = mine["samples"]
