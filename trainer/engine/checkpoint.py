"""Owns saved state: everything that a run needs to go on as if it had never stopped.

A checkpoint is a folder with a file per rank, renamed into place when all are complete. Random
streams need no saving: each is a pure function of (seed, client, round), and a sampler's place in
its data is two numbers.
"""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from trainer.config.errors import ConfigError, EnvironmentFault
from trainer.data.sampling import Position
from trainer.engine.clients import ClientState
from trainer.engine.run import Run
from trainer.files import write_atomically as write_atomically  # __main__ takes it from here


def save(run: Run, number: int, folder: Path) -> None:
    """Save the state after round `number`; every rank calls it."""
    assert run.comm.agree(run.anchor), "ranks hold different agreed models; this is a bug"
    partial, final = folder / "partial", folder / f"round-{number:06d}"
    if run.comm.rank == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    run.comm.barrier()
    if not partial.is_dir():
        raise EnvironmentFault(
            f"{folder} is not shared: rank {run.comm.rank} does not see what rank 0 made there; "
            "give all ranks one volume that many nodes can write to (ReadWriteMany)"
        )
    with (partial / f"rank-{run.comm.rank}.pt").open("wb") as file:
        torch.save(_state(run, number), file)
        file.flush()
        os.fsync(file.fileno())
    run.comm.barrier()
    if run.comm.rank == 0:
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        write_atomically(
            folder / "latest.json", json.dumps({"round": number, "folder": final.name})
        )
        for old in sorted(folder.glob("round-*"))[: -run.experiment.checkpoint.keep]:
            shutil.rmtree(old)
    run.comm.barrier()


def forget(folder: Path) -> None:
    """Remove what an earlier run in the same folder saved."""
    shutil.rmtree(folder, ignore_errors=True)


def restore(run: Run, folder: Path) -> int:
    """Load the latest complete checkpoint; returns its round, 0 where there is none."""
    if not (folder / "latest.json").exists():
        return 0
    latest = folder / json.loads((folder / "latest.json").read_text())["folder"]
    path = latest / f"rank-{run.comm.rank}.pt"
    if not path.exists():
        raise ConfigError("--resume", f"{path} is missing; the checkpoint was made by fewer ranks")
    try:
        state = torch.load(path, map_location=run.anchor.device, weights_only=True)
    except Exception as error:  # what a damaged file raises depends on where it is damaged
        raise EnvironmentFault(f"{path} is damaged; start a new run") from error
    if (state["digest"], state["ranks"]) != (run.experiment.digest(), run.comm.size):
        raise ConfigError(
            "--resume",
            f"{latest} belongs to experiment {state['digest']} on {state['ranks']} ranks, not to "
            f"{run.experiment.digest()} on {run.comm.size}; start a new run instead",
        )
    _load(run, state)
    return int(state["round"])


def _state(run: Run, number: int) -> dict[str, Any]:
    return {
        "round": number,
        "digest": run.experiment.digest(),
        "ranks": run.comm.size,
        "anchor": run.anchor,
        "buffers": run.buffers,
        "module_buffers": [b for b in run.flat.model.buffers() if not b.is_floating_point()],
        "algorithm": run.algorithm.state(),
        "policy": run.policy.state(),
        "clients": {client: vars(s) | {"position": asdict(s.position)}
                    for client, s in run.clients.states.items()},
        "taken": run.clients.taken,
        "tally": run.tally.state(),
        "own": run.own.state(),
        "clock": run.clock.state(),
        "loss": run.loss,
        "samples": run.samples,
    }  # fmt: skip


def _load(run: Run, state: dict[str, Any]) -> None:
    run.anchor.copy_(state["anchor"])
    run.buffers.copy_(state["buffers"])
    counters = [b for b in run.flat.model.buffers() if not b.is_floating_point()]
    for buffer, saved in zip(counters, state["module_buffers"], strict=True):
        buffer.copy_(saved)
    run.algorithm.load(state["algorithm"])
    run.policy.load(state["policy"])
    run.clients.states = {
        client: ClientState(**(saved | {"position": Position(**saved["position"])}))
        for client, saved in state["clients"].items()
    }
    run.clients.taken = state["taken"]
    vars(run.tally).update(state["tally"])  # in place: the communicator counts into it
    vars(run.own).update(state["own"])
    vars(run.clock).update(state["clock"])
    run.loss.copy_(state["loss"])
    run.samples = state["samples"]
