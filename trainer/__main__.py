"""Entry point of a rank, from a started process to an exit code.

`python -m trainer EXPERIMENT --out DIR`: fedctl, torchrun or a pod starts one such process per
rank; nothing here trains. Exit codes: 0 success, 1 the environment failed (a rank was lost, say),
2 a setting is wrong, 3 stopped at its deadline after a checkpoint, 143 stopped on SIGTERM after
one.
"""

import argparse
import json
import sys
import traceback
from pathlib import Path

from trainer import manifest
from trainer.config.errors import ConfigError, EnvironmentFault
from trainer.config.load import validate
from trainer.config.schema import Experiment
from trainer.engine import checkpoint, distributed, pod
from trainer.engine.build import build
from trainer.engine.diagnosis import FAILED, explain
from trainer.engine.loop import Loop
from trainer.engine.parts import RankState
from trainer.engine.pod import Deadline, Pod
from trainer.engine.status import Status, final, log, start_logging
from trainer.files import write_atomically
from trainer.manifest import Seal
from trainer.metrics.catalog import Row
from trainer.metrics.recorder import Recorder
from trainer.metrics.sink import Ended
from trainer.metrics.trackers import require

EXPERIMENT, METRICS = "experiment.json", "metrics.jsonl"  # in the run folder
DEADLINE, STOPPED = 3, 143  # exit codes, besides those of a failure
END = {  # how training ended -> status, exit code, message
    "finished": ("finished", 0, ""),
    "stopped": ("stopped", STOPPED, "stopped after a checkpoint"),
    "deadline": ("deadline", DEADLINE, "stopped at its deadline, after a checkpoint"),
}


def main() -> int:
    """Run this rank to its end, and write to its status record how it ended."""
    options = _options()
    try:
        rank, problem = distributed.world().rank, None
    except ConfigError as error:  # the rank is unknown, so the error is reported as rank 0's
        rank, problem = 0, error
    try:
        status = Status(options.out, rank)
        start_logging(options.out, rank)
    except OSError as error:  # there is no place for a record
        code, message = explain(error) or (FAILED, str(error))
        print(f"rank {rank}: {message}", file=sys.stderr)
        record = {"rank": rank, "status": "failed", "exit": code, "message": message}
        pod.leave_message(pod.termination_log(), record)
        return code
    try:
        if problem:
            raise problem
        how = train(
            options.experiment, options.out, options.resume, status, tuple(options.allow_changed)
        )
    except Exception as error:
        ours = f"{type(error).__name__}: {error} (this is a bug)"
        code, message = explain(error) or (FAILED, ours)
        if code == FAILED and not isinstance(error, EnvironmentFault):
            log.error("%s", traceback.format_exc())
        return _end(status, "failed", code, message)
    return _end(status, *END[how])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="trainer", description=__doc__)
    parser.add_argument("experiment", type=Path, help="a complete experiment, as JSON")
    parser.add_argument("--out", type=Path, required=True, help="the run folder")
    parser.add_argument(
        "--resume",
        nargs="?",
        choices=["always", "auto"],
        const="always",
        help="resume from the latest checkpoint; auto: start a new run if there is none, and do "
        "nothing if the run has finished",
    )
    parser.add_argument(
        "--allow-changed",
        action="append",
        default=[],
        metavar="KEY",
        help="resume although this setting is another now; data: other samples; metrics: a "
        "metrics.jsonl that has lost rows",
    )
    return parser.parse_args()


def train(
    path: Path, out: Path, resume: str | None, status: Status, allowed: tuple[str, ...] = ()
) -> str:
    """Assemble this rank and train; return how it ended: finished, stopped, or deadline."""
    variables = pod.read()
    deadline = Deadline(variables.deadline_seconds)
    experiment = _read(path, variables)
    require(experiment.metrics)
    if resume == "auto" and (last := adopt(out, experiment)):
        log.info("%s has already finished", out)
        status.write(round=last.round, final=final(last))
        return "finished"
    device = distributed.device(experiment.cluster)
    here = distributed.world()
    log.info("rank %d of %d by %s, on %s", here.rank, here.size, here.source, device)
    patience = variables.rendezvous_seconds or experiment.cluster.start_timeout
    distributed.join(experiment.cluster, experiment.ranks, device, patience)
    try:
        state = build(experiment, device, out)
        done, reached = _begin(state, out, resume, allowed)
        recorder = _recorder(state, out, done, reached)
        ended: Ended = "failed"
        try:
            port = _serve(experiment, variables, recorder, here.rank)
            status.write(round=done, metrics_port=port, notices=state.notices)
            log.info(
                "%s (%s): %d clients on %d ranks, %s, from round %d",
                experiment.name,
                experiment.digest(),
                experiment.clients,
                here.size,
                device,
                done + 1,
            )
            loop = Loop(state, out, status, recorder, done, deadline)
            finished = loop.train()
            status.write(round=loop.done)
            ended = "finished" if finished else "stopped"
        finally:
            recorder.close(ended)
        if finished:
            return "finished"
        # If another rank's deadline passed first, this rank was stopped by it.
        return "deadline" if deadline.passed() and not loop.stop_requested else "stopped"
    finally:
        distributed.leave()


def _begin(
    state: RankState, out: Path, resume: str | None, allowed: tuple[str, ...]
) -> tuple[int, Seal | None]:
    """Restore the run, or forget an earlier one; return the round, and how far the metrics went."""
    checkpoints, first = out / manifest.FOLDER, state.parts.group.rank == 0
    if not resume:
        if first:
            checkpoint.forget(checkpoints)
        return 0, None
    done, reached = checkpoint.restore(state, checkpoints, out / METRICS, allowed)
    if first:
        # It is this experiment's run from here on, and not finished any more.
        if done:
            (out / manifest.MODEL).unlink(missing_ok=True)
        write_atomically(out / EXPERIMENT, state.experiment.canonical())
    return done, reached


def _recorder(state: RankState, out: Path, done: int, reached: Seal | None) -> Recorder:
    experiment, group = state.experiment, state.parts.group
    labels = {
        "run": experiment.name,
        "digest": experiment.digest(),
        "rank": str(group.rank),
        "ranks": str(group.size),
    }
    return Recorder(out if group.rank == 0 else None, labels, done, experiment, reached)


def _read(path: Path, variables: Pod) -> Experiment:
    try:
        experiment = validate(json.loads(path.read_text()))
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(str(path), f"not the JSON of an experiment ({error})") from None
    if variables.digest not in (None, experiment.digest()):
        raise ConfigError(
            "FEDCTL_DIGEST",
            f"is {variables.digest}, but {path} has {experiment.digest()}, so it was changed after "
            "rendering; render and submit the run again",
        )
    return experiment


def adopt(out: Path, experiment: Experiment) -> Row | None:
    """Make `out` this experiment's run folder; return the last row if the run in it has finished.

    Under --resume=auto the folder outlives the process, and nobody checks it before the start. So
    an experiment file records which run it belongs to, like the one that fedctl writes locally.
    """
    mine = out / EXPERIMENT
    if not mine.exists():
        if distributed.world().rank == 0:
            write_atomically(mine, experiment.canonical())
        return None
    try:
        owner = validate(json.loads(mine.read_text()))
    except ValueError:
        raise ConfigError(
            "--resume=auto", f"{mine} cannot be read; use another folder for this run"
        ) from None
    if changed := owner.differences(experiment):
        key, (there, here) = next(iter(changed.items()))
        raise ConfigError(
            "--resume=auto",
            f"{out} belongs to another experiment: {key} is {there} there, and {here} here; use "
            "another folder for this run",
        )
    if not manifest.whole_model(out / manifest.MODEL):
        return None
    last = _last_row(out / METRICS)
    return None if last is None or (last.rounds_planned or 0) < experiment.rounds else last


def _last_row(metrics: Path) -> Row | None:
    """Return the last row; None if it cannot be read, and the run has to resume."""
    try:
        return Row.of(json.loads(metrics.read_text().splitlines()[-1]))
    except (OSError, ValueError, IndexError, TypeError, AttributeError):
        return None


def _serve(experiment: Experiment, variables: Pod, recorder: Recorder, rank: int) -> int | None:
    settings = experiment.metrics
    host, port = variables.metrics_host or settings.host, variables.metrics_port
    if port is None:
        if settings.port is None:
            return None
        port = settings.port + rank if settings.port else 0
    try:
        port = recorder.serve(host, port)
    except OSError as error:
        raise ConfigError(
            "metrics.port", f"{host}:{port} cannot be used ({error.strerror}); 0 picks a free one"
        ) from None
    log.info("metrics on http://%s:%d/metrics", host, port)
    return port


def _end(status: Status, how: str, code: int, message: str) -> int:
    if message:
        (log.error if how == "failed" else log.info)("%s", message)
    status.write(status=how, exit=code, message=message)
    pod.leave_message(pod.termination_log(), status.values)
    return code


if __name__ == "__main__":
    sys.exit(main())
