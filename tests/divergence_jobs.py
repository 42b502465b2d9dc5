"""Jobs for the laws of divergence: runs into which a value that is not finite is injected."""

import hashlib
import math
import signal
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from tests.jobs import experiment_run, history
from trainer.config.errors import Diverged
from trainer.engine.loop import Loop
from trainer.engine.mirror import Mirror
from trainer.engine.parts import RankState
from trainer.engine.status import Status
from trainer.engine.watch import Watch
from trainer.metrics.recorder import Recorder

MOST = torch.finfo(torch.float32).max


class Injection:
    """Spoils one thing of a run, in round `at`: of `client`, of the model, or of an evaluation."""

    def __init__(self, rank: RankState, kind: str, at: int, client: int) -> None:
        self.rank, self.kind, self.at, self.client = rank, kind, at, client
        self.turn: Any = None
        parts = rank.parts
        self.begin, self.update = parts.algorithm.begin, parts.algorithm.update
        self.apply = parts.algorithm.apply
        self.gradient, self.score = parts.worker.gradient, parts.worker.score
        parts.algorithm.begin, parts.algorithm.update = self.beginning, self.updating
        parts.algorithm.apply = self.applying
        parts.worker.gradient, parts.worker.score = self.loss, self.scores
        if kind == "kept":
            rank.store.empty = False  # as if some part kept something

    def _now(self, *kinds: str) -> bool:
        return self.kind in kinds and self.rank.server.number == self.at

    def _of_client(self, *kinds: str) -> bool:
        return self._now(*kinds) and self.turn is not None and self.turn.client == self.client

    def beginning(self, turn: Any) -> None:
        self.turn = turn
        self.begin(turn)

    def loss(self, x: Any, y: Any) -> Any:
        loss = self.gradient(x, y)
        return loss * math.nan if self._of_client("loss") else loss

    def updating(self, turn: Any) -> Any:
        offer = self.update(turn)
        policy, vector = self.rank.parts.policy, next(iter(offer.values()))
        if self._of_client("update"):
            # where the others would not see it, if there is such a place
            live = policy.live()
            vector[0 if live is None else int((~live).nonzero()[0])] = math.inf
        if self._of_client("overflow"):  # finite, but not in bf16
            live = policy.live()
            vector[0 if live is None else int(live.nonzero()[0])] = MOST
        if self._of_client("kept"):
            self.rank.store.memory(turn.client, "other")["kept"] = torch.tensor([math.nan])
        self.turn = None
        return offer

    def applying(self, server: Any, mean: Any) -> None:
        self.apply(server, mean)
        if self._now("model"):
            server.anchor.fill_(math.nan)
        self.tests = 0  # evaluations in this round

    def scores(self, batches: Any) -> Any:
        right, loss, count = self.score(batches)
        self.tests += 1  # the second one is of the reconciled model
        spoiled = self._now("test") or (self._now("final") and self.tests == 2)
        last = self.rank.parts.group.rank == self.rank.parts.group.size - 1
        return right, math.nan if spoiled and last else loss, count


def contents(folder: Path) -> dict[str, str]:
    """The digest of each file of the checkpoints."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def spoiled(tree: dict[str, Any], folder: str, kind: str, at: int, client: int) -> dict[str, Any]:
    """A run with an injection, which is also asked to stop in that round: how it ends."""
    out = Path(folder)
    rank = experiment_run(tree, out)
    Injection(rank, kind, at, client)
    number = rank.parts.world.rank
    recorder = Recorder(None if number else out, {}, 0)
    handler = signal.getsignal(signal.SIGTERM)
    loop = Loop(rank, Mirror(out, number), Status(out, number), recorder, 0)
    before: dict[str, str] = {}

    def stop() -> bool:
        if loop.done + 1 == at:
            before.update(contents(out / "checkpoints"))
            return number == 0
        return False

    message = ""
    try:
        with mock.patch.object(loop, "_must_stop", stop):
            loop.train()
    except Diverged as error:
        message = str(error)
    finally:
        signal.signal(signal.SIGTERM, handler)
        recorder.close()
    return {
        "round": loop.done,
        "message": message,
        "before": before,
        "after": contents(out / "checkpoints"),
    }


def unwatched(tree: dict[str, Any], rounds: int) -> list[dict[str, Any]]:
    """The history of a run in which nothing is watched."""

    def nothing(*_: object) -> None:
        pass

    with mock.patch.multiple(Watch, look=nothing, loss=nothing, close=nothing, begin=nothing):
        return history(tree, rounds)
