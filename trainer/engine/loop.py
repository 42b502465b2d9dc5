"""Owns the life of a run on one rank: rounds, evaluations, checkpoints, records, the end."""

import signal
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from trainer.engine import checkpoint, plan
from trainer.engine.allocator import held_bytes
from trainer.engine.evaluate import Result, estimate_buffers, evaluate, load_agreed, reconcile
from trainer.engine.pod import Deadline
from trainer.engine.round import play
from trainer.engine.run import Played, Run
from trainer.engine.status import Status, final, log
from trainer.metrics.recorder import Recorder
from trainer.sync.policy import Selection


@dataclass
class Loop:
    """Plays the rounds of `run` and writes into the run folder `out`."""

    run: Run
    out: Path
    status: Status
    recorder: Recorder
    done: int  # rounds played so far
    deadline: Deadline = field(default_factory=lambda: Deadline(None))
    stop_requested: bool = False

    def __post_init__(self) -> None:
        signal.signal(signal.SIGTERM, self._request_stop)

    def _request_stop(self, *_: object) -> None:
        self.stop_requested = True

    def _must_stop(self) -> bool:
        return self.stop_requested or self.deadline.passed()

    def train(self) -> bool:
        """Play the remaining rounds; False: stopped before the end, with a checkpoint."""
        experiment = self.run.experiment
        self.run.comm.barrier()  # or round 1 pays for the others' loading of data
        if experiment.evaluation.at_start and not self.done:
            untrained = Played(Selection(None, self.run.flat.size), 0)
            result = evaluate(self.run)
            self._record(self._row(untrained, result), result)
        reached = False  # the target accuracy
        while self.done < experiment.rounds and not reached:
            played = play(self.run, self.done + 1, self._must_stop)
            self.done += 1
            tested = evaluate(self.run) if plan.evaluated(experiment, self.done) else None
            self._record(self._row(played, tested), tested)
            reached = self._reached(tested)
            if reached or self.done == experiment.rounds:
                self._finish(played, tested)
            elif played.stop or plan.saved(experiment, self.done):
                checkpoint.save(self.run, self.done, self.out / "checkpoints")
                self.status.write(round=self.done)
                if played.stop:
                    return False
        return True

    def _reached(self, result: Result | None) -> bool:
        """Whether the model is better than it has to be; the same on every rank."""
        target = self.run.experiment.evaluation.target
        if result is None or target is None or result.accuracy <= target:
            return False
        log.info("target accuracy %g passed in round %d", target, self.done)
        return True

    def _finish(self, played: Played, result: Result | None) -> None:
        """One model out of all clients, tested and saved."""
        assert result is not None
        drifted = self.run.policy.drifted() is not None
        reconcile(self.run)
        if drifted and self.run.experiment.evaluation.model == "agreed":
            result = replace(evaluate(self.run), train_loss=result.train_loss)
        row = self._row(played, result) | {"final": True}
        self._record(row, result)
        self.status.write(final=final(row))
        assert self.run.comm.agree(self.run.anchor), "ranks end with different models; a bug"
        load_agreed(self.run)  # every rank: it may have to average the clients' buffers
        estimate_buffers(self.run)
        if self.run.comm.rank == 0:
            save_model(self.run, self.out / "model.safetensors")
        self.run.comm.barrier()

    def _row(self, played: Played, result: Result | None) -> dict[str, Any]:
        """The round under the catalogue's names, over all ranks (phases: this rank's)."""
        run, selection = self.run, played.selection
        return {
            "round": self.done,
            "rounds_planned": run.experiment.rounds,
            "time_seconds": run.clock.training,
            "federated_time_seconds": result and run.clock.federated,
            "test_accuracy_ratio": result and result.accuracy,
            "test_loss": result and result.loss,
            "train_loss": result and result.train_loss,
            **_alignment(played),
            "frozen_parameters_ratio": 1 - selection.count / run.flat.size,
            "labelled_frozen_ratio": selection.labelled / run.flat.size,
            "thawed_parameters": selection.thawed,
            "clients_sampled": played.clients,
            "parameters": run.flat.size,
            **run.tally.row(),
            "phase_seconds_total": dict(run.clock.seconds),
        }

    def _record(self, row: dict[str, Any], result: Result | None) -> None:
        ranks = self.run.comm.size
        own = self.run.own.row()
        own["wire_bytes_total"] = {kind: n / ranks for kind, n in self.run.tally.wire.items()}
        own["device_memory_bytes"] = held_bytes(self.run.comm.device)
        self.recorder.record(row, own)
        if result and self.run.comm.rank == 0:
            sent, dense = sum(self.run.tally.payload.values()), self.run.tally.dense
            log.info(
                "round %d/%d  accuracy %.2f %%  loss %.4f  frozen %.1f %%  sent %.2f MB, "
                "%.1f %% less than dense%s",
                self.done,
                self.run.experiment.rounds,
                100 * result.accuracy,
                result.loss if result.train_loss is None else result.train_loss,
                100 * row["frozen_parameters_ratio"],
                sent / 1e6,
                100 * (1 - sent / dense) if dense else 0.0,
                "  (final model)" if "final" in row else "",
            )


def _alignment(played: Played) -> dict[str, float]:
    """Under the catalogue's names; nothing where it was not measured."""
    if played.alignment is None:
        return {}
    variance, norm = played.alignment.variance, played.alignment.norm
    row = {"gradient_variance": variance}
    return row | {"gradient_deviation_ratio": variance**0.5 / norm} if norm else row


def save_model(run: Run, path: Path) -> None:
    """The network as it is loaded, as safetensors, in its own names."""
    tensors = {
        name: tensor.detach().cpu().clone()  # out of the flat vector: one storage per tensor
        for name, tensor in run.flat.model.state_dict().items()
    }
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial)
    partial.replace(path)
