"""Divergence: what ends a run, or is logged, once a loss or a model is not finite.

The numbers of a round are looked at in watch.py; here ranks agree on what they mean. All of them
decide alike, from sums over the ranks and from agreed values, so all end in the same round, and
with the same message.
"""

from dataclasses import dataclass
from math import isfinite

from trainer.config.errors import Diverged
from trainer.config.schema import Experiment
from trainer.engine.evaluate import Result
from trainer.engine.gradients import Alignment
from trainer.engine.parts import RankState
from trainer.engine.status import log
from trainer.engine.watch import GRADIENT, KEPT, LOSS, UPDATE, first_not_finite, order

OF_CLIENT = {
    GRADIENT: "the full gradient of client {}",
    LOSS: "the training loss of client {}",
    UPDATE: "the update of client {}",
    KEPT: "the state that client {} keeps",
}


@dataclass
class Judge:
    """Decides after each round whether the run has diverged.

    saved: round of the newest checkpoint, 0 if there is none; rounds: how many have diverged, which
    only divergence=warn lets become more than one.
    """

    rank: RankState
    saved: int
    rounds: int = 0

    def starts(self, number: int) -> None:
        """Check the model that the run starts from, or resumes from after round `number`."""
        if tensor := self._tensor():
            self._diverged(number, tensor)

    def passes(
        self, number: int, result: Result | None = None, alignment: Alignment | None = None
    ) -> bool:
        """Return whether round `number` was finite, after its ledger was settled.

        If it was not, raise Diverged, unless divergence=warn.
        """
        if not self.rank.ledger.found and _unlikely(result, alignment) is None:
            return True
        self.rounds += 1
        # under warn, a line for each round would bury the rest of the log
        if self.rank.experiment.divergence == "stop" or not self.rounds & (self.rounds - 1):
            found = self._found() if self.rank.ledger.found else _unlikely(result, alignment)
            assert found is not None, "ranks found something that none of them can name; a bug"
            self._diverged(number, found)
        return False

    def saves(self, number: int) -> None:
        """Check the final model, which is in the network, with the statistics to be saved."""
        if tensor := self._told(first_not_finite(self.rank.parts.worker.tensors())):
            self._diverged(number, f"tensor {tensor} of the final model")

    def _diverged(self, number: int, what: str) -> None:
        experiment = self.rank.experiment
        found = f"diverged in round {number}: {what} is not finite"
        if experiment.divergence == "warn":
            if self.rank.parts.world.rank == 0:
                log.warning("%s; divergence=warn continues", found)
            return
        kept = ""
        if self.saved:
            kept = (
                f"; to go on from the checkpoint of round {self.saved} with another value: "
                "--resume RUN --set KEY=VALUE --allow-changed KEY"
            )
        raise Diverged(f"{found}; try {_remedies(experiment)}{kept}")

    def _found(self) -> str | None:
        """Return what the ranks found in the round, the same on every rank."""
        world, mine = self.rank.parts.world, self.rank.watch.client
        told = [0.0] * (2 * world.size)
        if mine is not None:
            client, what = mine
            told[2 * world.rank], told[2 * world.rank + 1] = client, 1 + what
        told = world.sum_numbers(told, "control")
        clients = [
            (int(client), int(what) - 1)
            for client, what in zip(told[::2], told[1::2], strict=True)
            if what
        ]
        if clients:
            client, what = min(clients, key=order)
            return OF_CLIENT[what].format(client)
        return self._tensor()

    def _tensor(self) -> str | None:
        """Return the first tensor of the agreed state that is not finite, on any stage."""
        return self._told(self._own_tensor())

    def _told(self, name: str | None) -> str | None:
        """Return the name that the first stage with one has found."""
        told = self.rank.parts.line.to_all((name or "").encode(), "control")
        return next((text.decode() for text in told if text), None)

    def _own_tensor(self) -> str | None:
        worker, server = self.rank.parts.worker, self.rank.server
        if name := first_not_finite(worker.layout.views(server.anchor)):
            return f"tensor {name} of the agreed model"
        for kind, vector in server.state.items():
            if not vector.dim():  # a count of steps
                continue
            if name := first_not_finite(worker.layout.views(vector)):
                return f"tensor {name} of the server's {kind}"
        worker.enter(server.anchor, server.buffers)  # only the network knows their names
        name = first_not_finite(worker.tensors())
        return name and f"tensor {name} of the agreed model"


def _unlikely(result: Result | None, alignment: Alignment | None) -> str | None:
    """Return what an evaluation shows that is not finite, though clients and model may be."""
    if result is not None and not isfinite(result.loss):
        return "the loss on the test set"
    if result is not None and not isfinite(result.train_loss or 0.0):
        return "the training loss since the last evaluation"
    if alignment is not None and not (isfinite(alignment.variance) and isfinite(alignment.norm)):
        return "the variance of the clients' gradients"
    return None


def _remedies(experiment: Experiment) -> str:
    """Return the settings that may help and are not in use."""
    optimizer = experiment.optimizer
    found = [f"a smaller optimizer.lr (now {optimizer.lr:g})"]
    server = getattr(experiment.algorithm, "server", None)
    if server is not None and server.lr > type(server).model_fields["lr"].default:
        found.append(f"a smaller algorithm.server.lr (now {server.lr:g})")
    if optimizer.clip_norm is None:
        found.append("clipping (optimizer.clip_norm)")
    if not optimizer.warmup_rounds:
        found.append("a warm-up (optimizer.warmup_rounds)")
    if experiment.model.precision == "bf16":
        found.append("model.precision=fp32")
    if experiment.codec.name not in ("fp32", "fp64"):
        found.append("codec.name=fp32")
    *most, last = found
    text = f"{', '.join(most)} or {last}" if most else last
    return f"{text}; divergence=warn would continue"
