"""Entry point of a rank, from a started process to an exit code.

`python -m trainer EXPERIMENT --out DIR`: fedctl, torchrun or a pod starts one such process per
rank; nothing here trains. Exit codes: 0 success, 1 the environment failed (a rank was lost, say),
2 a setting is wrong, 3 stopped at its deadline, 143 stopped on SIGTERM: after a checkpoint, unless
the last round was not finite.
"""

import argparse
import sys
import time
import traceback
from pathlib import Path
from typing import NamedTuple

from trainer.config import documents
from trainer.config.errors import ConfigError, EnvironmentFault
from trainer.config.load import validate
from trainer.config.schema import Experiment
from trainer.config.secrets import redact, redacted
from trainer.engine import checkpoint, distributed, pod
from trainer.engine.adoption import adopt
from trainer.engine.build import build
from trainer.engine.diagnosis import FAILED, explain
from trainer.engine.loop import Loop
from trainer.engine.mirror import Mirror
from trainer.engine.parts import RankState
from trainer.engine.pod import Deadline, Pod
from trainer.engine.status import Status, final, keep_log, log, show_log
from trainer.files import not_a_file, not_regular
from trainer.lock import Lock, Taken
from trainer.manifest import METRICS, Seal
from trainer.metrics.recorder import Recorder
from trainer.metrics.sink import Ended
from trainer.metrics.trackers import require

WAIT_SECONDS = 120  # for the last holder of the run folder; a lost node is noticed after 40
CODES = {"finished": 0, "stopped": 143, "deadline": 3}  # exit codes, besides those of a failure


class End(NamedTuple):
    """How training ended, and what a person is told of it."""

    how: str
    message: str = ""


def main() -> int:
    """Run this rank to its end, and write to its status record how it ended."""
    options = _options()
    rank, lock = 0, None  # an unknown rank's error is reported as rank 0's
    try:
        here = distributed.world()
        rank = here.rank
        show_log(rank)
        log.addFilter(redact)  # libraries put addresses into their errors
        if odd := not_a_file(options.out):
            raise EnvironmentFault(f"{odd} {not_regular(odd)}")
        # Nothing is written before this, since the folder may have the records of a run under way.
        lock = None if here.store or rank else _alone(options.out)
        status = Status(options.out, rank)
        keep_log(options.out, rank)
        return _run(options, rank, status)
    except (ConfigError, EnvironmentFault, OSError) as error:
        return _end_without_record(rank, options.out, error)
    finally:
        if lock:
            lock.release()


def _run(options: argparse.Namespace, rank: int, status: Status) -> int:
    """Train, and write how it ended."""
    mirror = Mirror(options.out, rank)
    try:
        mirror = Mirror(options.out, rank, pod.read().run_url)
        allowed = tuple(options.allow_changed)
        how, told = train(options.experiment, mirror, options.resume, status, allowed)
    except Exception as error:
        ours = f"{type(error).__name__}: {error} (this is a bug)"
        code, message = explain(error, options.out) or (FAILED, ours)
        if code == FAILED and not isinstance(error, EnvironmentFault):
            log.error("%s", traceback.format_exc())
        return _end(status, mirror, "failed", code, message)
    return _end(status, mirror, how, CODES[how], told)


def _end_without_record(rank: int, out: Path, error: Exception) -> int:
    """Report how a rank failed that has no record: no place for one, or another run's folder."""
    code, message = explain(error, out) or (FAILED, str(error))
    message = redacted(message)
    print(f"rank {rank}: {message}", file=sys.stderr)
    record = {"rank": rank, "status": "failed", "exit": code, "message": message}
    pod.leave_message(pod.termination_log(), record)
    return code


def _alone(out: Path) -> Lock:
    """On rank 0: take the run folder, which fedctl has done for the ranks that it started.

    A pod that takes the place of a lost one may come before the lost one is known to have ended.
    """
    out.mkdir(parents=True, exist_ok=True)
    until, told = time.monotonic() + WAIT_SECONDS, False
    while True:
        try:
            return Lock(out)
        except Taken as error:
            if time.monotonic() > until:
                raise EnvironmentFault(
                    f"{out} is being run by {error}; end that first, or use another folder"
                ) from None
            if not told:
                log.info("waiting for %s, which still holds %s", error, out)
                told = True
            time.sleep(1)


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
    path: Path,
    mirror: Mirror,
    resume: str | None,
    status: Status,
    allowed: tuple[str, ...] = (),
) -> End:
    """Assemble this rank and train; return how it ended: finished, stopped, or deadline.

    path: the experiment; mirror: where the run is kept.
    """
    variables = pod.read()
    deadline = Deadline(variables.deadline_seconds)
    experiment = _read(path, variables)
    require(experiment.metrics)
    here = distributed.world()
    if resume:
        mirror.bring()
    if resume == "auto" and (last := adopt(mirror, experiment)):
        log.info("%s has already finished", mirror)
        status.write(round=last.round, final=final(last))
        return End("finished")
    device = distributed.device(experiment.cluster)
    by = f" by {here.source}" if here.source else ""
    log.info("rank %d of %d%s, on %s", here.rank, here.size, by, device)
    patience = variables.rendezvous_seconds or experiment.cluster.start_timeout
    distributed.join(experiment.cluster, experiment.ranks, device, patience)
    try:
        first = resume and here.rank == 0
        edges = checkpoint.edges(mirror.place) if first else ()
        state = build(experiment, device, mirror.out, edges)
        done, reached = _begin(state, mirror, resume, allowed)
        recorder = _recorder(state, mirror.out, done, reached)
        ended: Ended = "failed"
        try:
            port = _serve(experiment, variables, recorder, here.rank)
            status.write(round=done, resumed_at=done, metrics_port=port, notices=state.notices)
            log.info(
                "%s (%s): %s, %s, from round %d",
                experiment.name,
                experiment.digest(),
                experiment.sizes(),
                device,
                done + 1,
            )
            loop = Loop(state, mirror, status, recorder, done, deadline)
            finished = loop.train()
            status.write(round=loop.done)
            ended = "finished" if finished else "stopped"
        finally:
            recorder.close(ended)
        if finished:
            return End("finished")
        # If another rank's deadline passed first, this rank was stopped by it.
        late = deadline.passed() and not loop.stop_requested
        return End("deadline" if late else "stopped", _stopped(late, loop.done, loop.judge.saved))
    finally:
        distributed.leave()


def _stopped(late: bool, done: int, saved: int) -> str:
    """Return what a person is told of a stop after round `done`; saved: the newest checkpoint's."""
    what = "after a checkpoint"
    if saved != done:  # with divergence=warn
        kept = f"the newest checkpoint is of round {saved}" if saved else "there is no checkpoint"
        what = f"after round {done}, which was not finite; {kept}"
    return f"stopped at its deadline, {what}" if late else f"stopped {what}"


def _begin(
    state: RankState, mirror: Mirror, resume: str | None, allowed: tuple[str, ...]
) -> tuple[int, Seal | None]:
    """Restore the run, or forget an earlier one; return the round, and how far the metrics went."""
    place, first = mirror.place, state.parts.world.rank == 0
    if not resume:
        if first:
            mirror.begin(state.experiment.canonical())
            mirror.not_finished()
            mirror.resumes(0, {})
            place.forget()
        return 0, None
    done, reached = checkpoint.restore(state, place, mirror.out / METRICS, allowed)
    if first:
        mirror.not_finished()
        mirror.resumes(done, state.changed)
        for key, (was, now) in state.changed.items():
            state.notice(f"from round {done + 1} {key} {was} -> {now}")
        if not done:  # else it stays another's until there is a checkpoint of this one
            mirror.own(state.experiment.canonical())
    return done, reached


def _recorder(state: RankState, out: Path, done: int, reached: Seal | None) -> Recorder:
    experiment, world = state.experiment, state.parts.world
    own = out if world.rank == 0 else None
    return Recorder(own, named(state), done, experiment, reached)


def named(state: RankState) -> dict[str, str]:
    """Return the labels that say on /metrics which run, and which rank of it, this is."""
    experiment, world = state.experiment, state.parts.world
    return {
        "run": experiment.name,
        "digest": experiment.digest(),
        "rank": str(world.rank),
        "ranks": str(world.size),
        "stage": str(state.parts.line.rank),
    }


def _read(path: Path, variables: Pod) -> Experiment:
    tree = documents.read(path)
    if not isinstance(tree, dict):
        raise ConfigError(str(path), "not the JSON of an experiment")
    experiment = validate(tree)
    if variables.digest not in (None, experiment.digest()):
        raise ConfigError(
            "FEDCTL_DIGEST",
            f"is {variables.digest}, but {path} has {experiment.digest()}, so it was changed after "
            "rendering; render and submit the run again",
        )
    return experiment


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


def _end(status: Status, mirror: Mirror, how: str, code: int, message: str) -> int:
    message = redacted(message)
    if message:
        (log.error if how == "failed" else log.info)("%s", message)
    status.write(status=how, exit=code, message=message)
    mirror.last_words()
    pod.leave_message(pod.termination_log(), status.values)
    return code


if __name__ == "__main__":
    sys.exit(main())
