"""Entry point of a rank, from a started process to an exit code.

`python -m trainer EXPERIMENT --out DIR`: torchrun (or a pod) starts one such process per rank;
nothing here trains. Exit codes: 0 success, 1 the environment failed (a rank was lost, say), 2 a
setting is wrong, 3 stopped at its deadline after a checkpoint, 143 stopped on SIGTERM after a
checkpoint.
"""

import argparse
import json
import sys
import traceback
from pathlib import Path

import torch

from trainer.config.errors import ConfigError, EnvironmentFault
from trainer.config.load import validate
from trainer.config.schema import Experiment
from trainer.config.secrets import redact, redacted
from trainer.engine import checkpoint, distributed, pod
from trainer.engine.build import build
from trainer.engine.loop import Loop
from trainer.engine.pod import Deadline, Pod
from trainer.engine.status import Status, final, log, start_logging
from trainer.exchange.group import first_sentence
from trainer.files import write_atomically
from trainer.metrics.catalog import Row
from trainer.metrics.recorder import Recorder
from trainer.metrics.sink import Ended
from trainer.metrics.trackers import require

FAILED, WRONG, DEADLINE, STOPPED = 1, 2, 3, 143
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
    status = Status(options.out, rank)
    start_logging(options.out, rank)
    log.addFilter(redact)  # libraries put addresses into their errors
    try:
        if problem:
            raise problem
        how = train(options.experiment, options.out, options.resume, status)
    except ConfigError as error:
        return _end(status, "failed", WRONG, str(error))
    except EnvironmentFault as error:
        return _end(status, "failed", FAILED, str(error))
    except (OSError, MemoryError, torch.OutOfMemoryError) as error:
        return _end(status, "failed", FAILED, f"{type(error).__name__}: {first_sentence(error)}")
    except Exception as error:
        log.error("%s", traceback.format_exc())
        return _end(status, "failed", FAILED, f"{type(error).__name__}: {error} (this is a bug)")
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
    return parser.parse_args()


def train(path: Path, out: Path, resume: str | None, status: Status) -> str:
    """Assemble this rank and train; return how it ended: finished, stopped, or deadline."""
    variables = pod.read()
    deadline = Deadline(variables.deadline_seconds)
    experiment = _read(path, variables)
    require(experiment.metrics)
    if resume == "auto" and adopt(out, experiment):
        log.info("%s has already finished", out)
        last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
        status.write(round=last["round"], final=final(Row.of(last)))
        return "finished"
    device = distributed.device(experiment.cluster)
    here = distributed.world()
    log.info("rank %d of %d by %s, on %s", here.rank, here.size, here.source, device)
    patience = variables.rendezvous_seconds or experiment.cluster.timeout
    distributed.join(experiment.cluster, experiment.ranks, device, patience)
    try:
        state = build(experiment, device, out)
        rank, ranks = state.parts.group.rank, state.parts.group.size
        if not resume and rank == 0:
            checkpoint.forget(out / "checkpoints")
        done = checkpoint.restore(state, out / "checkpoints") if resume else 0
        labels = {
            "run": experiment.name,
            "digest": experiment.digest(),
            "rank": str(rank),
            "ranks": str(ranks),
        }
        recorder = Recorder(out if rank == 0 else None, labels, done, experiment)
        ended: Ended = "failed"
        try:
            status.write(round=done, metrics_port=_serve(experiment, variables, recorder, rank))
            log.info(
                "%s (%s): %d clients on %d ranks, %s, from round %d",
                experiment.name,
                experiment.digest(),
                experiment.clients,
                ranks,
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


def adopt(out: Path, experiment: Experiment) -> bool:
    """Make `out` this experiment's run folder; return whether the run in it has finished.

    Under --resume=auto the folder outlives the process, and nobody checks it before the start. So
    an experiment file records which run it belongs to, like the one that fedctl writes locally.
    """
    mine, owner = out / "experiment.json", None
    if mine.exists():
        try:
            owner = validate(json.loads(mine.read_text())).digest()
        except ValueError:
            owner = "that cannot be read"
        if owner != experiment.digest():
            raise ConfigError(
                "--resume=auto",
                f"{out} belongs to experiment {owner}, not to {experiment.digest()}; use another "
                "folder for this run",
            )
    elif distributed.world().rank == 0:
        write_atomically(mine, experiment.canonical())
    return owner is not None and (out / "model.safetensors").exists()


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
    message = redacted(message)
    if message:
        (log.error if how == "failed" else log.info)("%s", message)
    status.write(status=how, exit=code, message=message)
    pod.leave_message(pod.termination_log(), status.values)
    return code


if __name__ == "__main__":
    sys.exit(main())
