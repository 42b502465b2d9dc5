"""Jobs for the guard of agreement: runs in which one rank comes to hold another bit."""

import signal
from pathlib import Path
from typing import Any

import torch

from tests.jobs import experiment_run
from trainer.config.errors import EnvironmentFault
from trainer.engine.loop import Loop
from trainer.engine.mirror import Mirror
from trainer.engine.parts import RankState
from trainer.engine.status import Status
from trainer.exchange.reductions.low_rank import LowRank
from trainer.metrics.recorder import Recorder


def _flip(rank: RankState, at: int) -> None:
    """Change one bit in round `at`: of a basis of low rank, or else of the mask."""
    parts, reduction = rank.parts, rank.parts.reduction
    apply, applied = parts.algorithm.apply, parts.policy.applied

    def of_basis(server: Any, mean: Any) -> None:
        apply(server, mean)
        if server.number == at:
            (bases,) = reduction.bases.values()
            bases[0].view(-1).view(torch.int32)[5] ^= 1

    def of_mask(change: Any, server: Any, places: Any) -> None:
        applied(change, server, places)
        if server.number == at:
            frozen = parts.policy.frozen.clone()
            frozen[0] = ~frozen[0]
            parts.policy.freeze(frozen)

    if isinstance(reduction, LowRank):
        parts.algorithm.apply = of_basis
    else:
        parts.policy.applied = of_mask


def flipped(tree: dict[str, Any], folder: str, which: int, at: int) -> tuple[int, str]:
    """A run in which rank `which` holds another bit after round `at`: its last round, its error."""
    out = Path(folder)
    rank = experiment_run(tree, out)
    number = rank.parts.world.rank
    if number == which:
        _flip(rank, at)
    recorder = Recorder(None if number else out, {}, 0)
    handler = signal.getsignal(signal.SIGTERM)
    loop = Loop(rank, Mirror(out, number), Status(out, number), recorder, 0)
    message = ""
    try:
        loop.train()
    except EnvironmentFault as error:
        message = str(error)
    finally:
        signal.signal(signal.SIGTERM, handler)
        recorder.close()
    return loop.done, message
