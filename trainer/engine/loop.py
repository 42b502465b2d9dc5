"""The loop of a run on one rank: rounds, evaluations, checkpoints, metrics, and the saved model.

What happens within a round is in round.py.
"""

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from math import isfinite
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from trainer import manifest
from trainer.engine import agreement, arrival, checkpoint, plan
from trainer.engine.allocator import held_bytes
from trainer.engine.divergence import Judge
from trainer.engine.evaluate import Result, estimate_buffers, evaluate, load_agreed, reconcile
from trainer.engine.mirror import Mirror
from trainer.engine.parts import RankState
from trainer.engine.pod import Deadline
from trainer.engine.round import RoundResult, run_round
from trainer.engine.state import whole_tensors
from trainer.engine.status import Status, final, log
from trainer.exchange.message import Places
from trainer.files import write_atomically
from trainer.metrics.catalog import Row, uploaded
from trainer.metrics.recorder import Recorder


@dataclass
class Loop:
    """The rounds of `rank`, with their output where the run is kept."""

    rank: RankState
    mirror: Mirror
    status: Status
    recorder: Recorder
    done: int  # rounds completed
    deadline: Deadline = field(default_factory=lambda: Deadline(None))
    stop_requested: bool = False
    judge: Judge = field(init=False)
    trained: float = field(init=False)  # seconds before this process

    def __post_init__(self) -> None:
        self.judge = Judge(self.rank, self.done)
        self.trained = self.rank.clock.training
        signal.signal(signal.SIGTERM, self._request_stop)

    def _request_stop(self, *_: object) -> None:
        self.stop_requested = True

    def _must_stop(self) -> bool:
        return self.stop_requested or self.deadline.passed()

    def train(self) -> bool:
        """Run the remaining rounds; return False if stopped before the end.

        Then the newest checkpoint is of round `judge.saved`: of the last one, if that was finite.
        """
        experiment = self.rank.experiment
        self.judge.starts(self.done)
        patience = timedelta(seconds=experiment.cluster.start_timeout)
        self.rank.parts.world.barrier(patience)  # else round 1 includes the others' loading of data
        if experiment.evaluation.at_start and not self.done:
            places = Places(len(self.rank.server.anchor))
            untrained = RoundResult(places, self.rank.parts.worker.whole.parameters)
            result = evaluate(self.rank)
            self._record(self._row(untrained, result), result)
            self.judge.passes(0, result)
        if self._over():  # it was stopped between its last round and its end
            self._finish(self.recorder.last or Row(round=self.done), evaluate(self.rank))
            return True
        while not self._over():
            outcome = run_round(self.rank, self.done + 1, self._must_stop)
            self.done += 1
            if due := plan.evaluated(experiment, self.done):
                agreement.compare(self.rank, self.judge.saved)
            evaluated = evaluate(self.rank) if due else None
            if evaluated is None:
                self.rank.ledger.settle()
            else:
                self.rank.accuracy = evaluated.accuracy
                self.rank.perplexity = evaluated.perplexity
            row = self._row(outcome, evaluated)
            self._record(row, evaluated)
            finite = self.judge.passes(self.done, evaluated, outcome.alignment)
            if finite:
                agreement.check(self.rank, self.done, self.judge.saved)
            if outcome.stop or self._saved():
                self._save(finite)
            if self._over():
                assert evaluated is not None
                self._finish(row, evaluated)
            elif outcome.stop:
                return False
        return True

    def _over(self) -> bool:
        """Whether all rounds are done, or a target is passed; the same on every rank."""
        experiment = self.rank.experiment
        passed = experiment.evaluation.passed(self.rank.accuracy, self.rank.perplexity)
        return passed or self.done == experiment.rounds

    def _saved(self) -> bool:
        experiment = self.rank.experiment
        return (self._over() and experiment.checkpoint.at_end) or plan.saved(experiment, self.done)

    def _save(self, finite: bool) -> None:
        """Save a checkpoint, unless it would take the place of a better one."""
        if finite:
            reached = self.recorder.reached()
            self.mirror.metrics()
            checkpoint.save(self.rank, self.done, self.mirror.place, reached)
            self.judge.saved = self.done
            if self.rank.parts.world.rank == 0:
                self.mirror.saved(self.rank.experiment.canonical())
        elif self.rank.parts.world.rank == 0:
            log.warning("no checkpoint of round %d, which is not finite", self.done)
        self._report()
        self.mirror.logs()

    def _report(self) -> None:
        """Write this rank's progress, and how evenly it was loaded, to its status record."""
        ledger, rank = self.rank.ledger, self.rank.parts.group.rank  # a pipeline's trains together
        own, all_ranks = ledger.rank_samples[rank], sum(ledger.rank_samples)
        self.status.write(
            round=self.done,
            samples=own,
            share=round(own / all_ranks, 4) if all_ranks else None,
            idle_seconds=round(ledger.idle[rank], 3),
        )

    def _finish(self, row: Row, result: Result) -> None:
        """Combine all clients into one model, evaluate it and save it; row: of the last round."""
        if self.done < self.rank.experiment.rounds:
            log.info("the target was passed in round %d", self.done)
        rank, group = self.rank, self.rank.parts.group
        arrived = arrival.finish(rank)
        drifted = rank.drifted()
        reconcile(rank)
        if arrived or (drifted and rank.experiment.evaluation.model == "agreed"):
            result = replace(evaluate(rank), train_loss=result.train_loss)
        else:
            rank.ledger.settle()
        self.judge.passes(self.done, result)
        rank.check_agreement()
        self._tell_of_coding()
        load_agreed(rank)  # on every rank, since it may have to average the clients' buffers
        estimate_buffers(rank)
        self.judge.saves(self.done)
        model = whole_tensors(rank) if group.rank == 0 else {}  # one replica is enough
        rank.ledger.settle()  # again, so that the last row has what the ranks sent for the model
        row = replace(row, final=True)
        self._measured(row, result)
        self._record(row, result)
        self._report()
        self.status.write(final=final(row))
        if rank.parts.world.rank == 0:
            self.recorder.reached()  # the final row is on the disk before the model
            self.mirror.saved(rank.experiment.canonical())
            save_model(model, self.mirror.out / manifest.MODEL)
            self.mirror.result()
        rank.store.close()
        rank.parts.world.barrier()

    def _tell_of_coding(self) -> None:
        """Tell a person if the codec cost the ranks more time than it saved; all ranks call it."""
        rank, world = self.rank, self.rank.parts.world
        codes = not rank.parts.reduction.folds and world.size > 1
        if not codes or rank.overlap or rank.clock.device.type != "cpu":
            return  # nothing is coded or sent, or that is hidden, or a GPU codes beside other work
        training = rank.clock.training - self.trained
        told = rank.pace.told(world, rank.experiment.codec.name, training)
        if told:
            log.info("%s", told)
            self.status.write(advice=told)

    def _row(self, outcome: RoundResult, result: Result | None) -> Row:
        """Return the metrics of the round over all ranks (phases: this rank's)."""
        size = self.rank.parts.worker.whole.parameters
        row = Row(
            round=self.done,
            frozen_parameters_ratio=1 - outcome.sent / size,
            labelled_frozen_ratio=outcome.labelled / size,
            thawed_parameters=outcome.thawed,
            clients_sampled=outcome.clients,
            parameters=size,
        )
        if outcome.alignment is not None:
            variance, norm = outcome.alignment.variance, outcome.alignment.norm
            row.gradient_variance = variance
            row.gradient_deviation_ratio = variance**0.5 / norm if norm else None
        self._measured(row, result)
        return row

    def _measured(self, row: Row, result: Result | None) -> None:
        """Write into a row what was measured until now."""
        rank = self.rank
        row.rounds_planned = rank.experiment.rounds
        row.time_seconds = rank.clock.training
        row.phase_seconds_total = dict(rank.clock.seconds)
        row.hidden_exchange_seconds_total = rank.clock.hidden
        if result is not None:
            row.test_accuracy_ratio, row.test_loss = result.accuracy, result.loss
            row.test_perplexity = result.perplexity
            if result.train_loss is not None:
                row.train_loss = result.train_loss
        rank.ledger.fill(row)

    def _record(self, row: Row, result: Result | None) -> None:
        own = Row(round=row.round, device_memory_bytes=held_bytes(self.rank.clock.device))
        self.rank.ledger.fill_own(own)
        self.recorder.record(row, own)
        if result and self.rank.parts.world.rank == 0:
            ledger = self.rank.ledger
            sent, dense = uploaded(ledger.total.payload), ledger.tally.dense
            log.info(
                "round %d/%d  accuracy %.2f %%  loss %s%s  frozen %.1f %%  sent %.2f MB, "
                "%.1f %% less than dense%s%s",
                self.done,
                self.rank.experiment.rounds,
                100 * result.accuracy,
                f"{result.loss:.4f}" if isfinite(result.loss) else "not finite",
                "" if result.perplexity is None else f"  perplexity {result.perplexity:.2f}",
                100 * (row.frozen_parameters_ratio or 0.0),
                sent / 1e6,
                100 * (1 - sent / dense) if dense else 0.0,
                _idle(row),
                "  (final model)" if row.final else "",
            )


def _idle(row: Row) -> str:
    """Return how idle a pipeline's ranks were in a round, for the log."""
    measured, ideal = row.pipeline_idle_ratio, row.pipeline_ideal_idle_ratio
    if measured is None or ideal is None:
        return ""
    return f"  idle {100 * measured:.1f} % (ideal {100 * ideal:.1f} %)"


def save_model(model: Mapping[str, Tensor], path: Path) -> None:
    """Save a network's tensors as safetensors, with their own names."""
    tensors = {
        name: tensor.detach().cpu().clone()  # not a view of the flat vector: one storage each
        for name, tensor in model.items()
    }
    write_atomically(path, save(tensors))
