"""The trackers: TensorBoard, Weights & Biases and MLflow.

No other module knows these libraries; each is imported only if a run uses it. That a tracker can
neither slow nor end a run is the business of metrics/sink.py.
"""

import importlib.util
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from trainer.config.errors import ConfigError, install
from trainer.config.load import flatten
from trainer.config.operation import Metrics
from trainer.config.schema import Experiment
from trainer.files import write_atomically
from trainer.metrics.sink import CLOSE_SECONDS, Ended, Point, Sink, Tracker

CONNECT_SECONDS = 30  # then W&B reports that its server does not answer
POINTS_PER_CALL = 20  # of some 40 values each: MLflow takes at most 1000 values at once
PARAMS_PER_CALL = 100  # MLflow's limit
# MLflow's names of the statuses.
ENDINGS: dict[Ended, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


@dataclass(frozen=True)
class Scope:
    """What a tracker works on: an experiment, its run folder, the round that it resumes from."""

    experiment: Experiment
    out: Path
    resume_round: int  # 0: a new run

    @property
    def folder(self) -> Path:
        return self.out.resolve() / "trackers"

    @property
    def model(self) -> Path:
        return self.out.resolve() / "model.safetensors"

    def settings(self) -> dict[str, Any]:
        """Return the whole experiment by dotted keys, with its digest; lists as JSON."""
        tree = flatten(self.experiment.model_dump(mode="json"))
        flat = {key: json.dumps(v) if isinstance(v, list) else v for key, v in tree}
        return flat | {"digest": self.experiment.digest()}

    def known_id(self, tracker: str) -> str | None:
        """Return the tracker's id of this run, if the run is resumed."""
        path = self.folder / f"{tracker}.id"
        return path.read_text() if self.resume_round and path.exists() else None

    def keep_id(self, tracker: str, run_id: str) -> None:
        """Keep the id for a resumed run; in the run folder, so that both move together."""
        write_atomically(self.folder / f"{tracker}.id", run_id)


class TensorBoard:
    """Event files. After a killed process the last rows are missing, and it is unknown which.

    So a resumed run writes all rows again, after a mark at which readers discard earlier ones
    (purge_step).
    """

    remote = False

    def __init__(self, scope: Scope) -> None:
        from torch.utils import tensorboard

        self.scope, self.step = scope, scope.resume_round
        self.library: Any = tensorboard  # whose writer is typed as if it never had a file

    def open(self) -> int:
        folder = self.scope.folder / "tensorboard"
        self.writer = self.library.SummaryWriter(str(folder), purge_step=0, flush_secs=10)
        settings = {k: "" if v is None else v for k, v in self.scope.settings().items()}
        compared = {"test_accuracy_ratio": 0, "time_seconds": 0}
        for summary in self.library.summary.hparams(settings, compared):
            self.writer.file_writer.add_summary(summary)
        return -1

    def write(self, points: Sequence[Point]) -> None:
        for point in points:
            self.step = point.step
            for name, value in point.values.items():
                self.writer.add_scalar(name, value, point.step)

    def close(self, status: Ended) -> None:
        self.writer.add_text("status", status, self.step)
        self.writer.close()


class WeightsAndBiases:
    """A run on a W&B server, or a folder that `wandb sync` uploads to one.

    A server continues the run with this id, and reports its last step. A folder cannot be
    continued, so a resumed run replaces it by a complete one, written from metrics.jsonl.
    """

    def __init__(self, scope: Scope) -> None:
        # Settings that the library reads from environment variables only.
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        os.environ["WANDB_SILENT"] = "true"
        for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
            os.environ.setdefault(name, str(scope.folder / "wandb"))
        import wandb

        self.scope, self.library = scope, wandb
        self.chosen = scope.experiment.metrics.wandb
        self.remote = self.chosen.mode == "online"

    def open(self) -> int:
        scope, known = self.scope, self.scope.known_id("wandb")
        run_id = known or f"{scope.experiment.digest()}-{uuid.uuid4().hex[:8]}"
        if not self.remote:
            for folder in (scope.folder / "wandb").glob(f"offline-run-*-{run_id}"):
                shutil.rmtree(folder)
        self.run = self.library.init(
            project=self.chosen.project,
            entity=self.chosen.entity,
            name=scope.experiment.name,
            notes=scope.experiment.description,
            id=run_id,
            resume="allow" if known and self.remote else None,
            mode="online" if self.remote else "offline",
            dir=scope.folder,
            config=scope.settings(),
            reinit="create_new",
            settings=self.library.Settings(
                init_timeout=CONNECT_SECONDS,
                finish_timeout=CLOSE_SECONDS["finished" if self.chosen.model else "stopped"],
                silent=True,
                # Nothing about the machine, its user or the code is sent to W&B.
                console="off",
                disable_code=True,
                disable_git=True,
                host="",
                label_disable=True,
                save_code=False,
                x_disable_machine_info=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )
        scope.keep_id("wandb", run_id)
        return self.run.starting_step - 1 if self.run.resumed else -1

    def write(self, points: Sequence[Point]) -> None:
        for point in points:
            if point.final:
                self.run.summary.update(point.values)
            else:
                self.run.log(point.values, step=point.step)

    def close(self, status: Ended) -> None:
        self.run.summary["status"] = status
        if self.chosen.model and status == "finished":
            artifact = self.library.Artifact(f"{self.scope.experiment.name}-model", type="model")
            artifact.add_file(str(self.scope.model), policy="immutable", skip_cache=True)
            self.run.log_artifact(artifact)
        self.run.finish(exit_code=int(status != "finished"))


class MLflow:
    """A run on an MLflow server, in a database, or in a database of its own in the run folder."""

    def __init__(self, scope: Scope) -> None:
        # Settings that the library reads from environment variables only.
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")  # a minute; 7 take four
        import mlflow

        for name in ("alembic", "mlflow", "urllib3.connectionpool"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self.scope, self.library = scope, mlflow
        self.chosen = scope.experiment.metrics.mlflow
        self.remote = bool(self.chosen.uri)

    def open(self) -> int:
        self.own = self.scope.folder / "mlflow"
        self.own.mkdir(exist_ok=True)
        self.client = self.library.MlflowClient(
            self.chosen.uri or f"sqlite:///{self.own}/mlflow.db"
        )
        known = self.scope.known_id("mlflow")
        if known is None:
            self.run_id = self._create()
            self.scope.keep_id("mlflow", self.run_id)
            return -1
        self.run_id = known
        self.client.update_run(known, status="RUNNING")
        has = self.client.get_run(known).data.metrics
        return int(has["final/round"] + 1 if "final/round" in has else has.get("round", -1))

    def _create(self) -> str:
        entities, experiment = self.library.entities, self.scope.experiment
        listed = self.client.get_experiment_by_name(self.chosen.experiment)
        where = None if self.remote else (self.own / "artifacts").as_uri()
        run = self.client.create_run(
            listed.experiment_id
            if listed
            else self.client.create_experiment(self.chosen.experiment, artifact_location=where),
            run_name=experiment.name,
            tags={"digest": experiment.digest(), "mlflow.note.content": experiment.description},
        )
        params = [entities.Param(k, str(v)) for k, v in self.scope.settings().items()]
        for start in range(0, len(params), PARAMS_PER_CALL):
            some = params[start : start + PARAMS_PER_CALL]
            self.client.log_batch(run.info.run_id, params=some)
        return str(run.info.run_id)

    def write(self, points: Sequence[Point]) -> None:
        now = time.time_ns() // 1_000_000
        for start in range(0, len(points), POINTS_PER_CALL):
            metrics = [
                self.library.entities.Metric(name, value, now, point.step)
                for point in points[start : start + POINTS_PER_CALL]
                for name, value in point.values.items()
            ]
            self.client.log_batch(self.run_id, metrics=metrics)

    def close(self, status: Ended) -> None:
        if self.chosen.model and status == "finished":
            self.client.log_artifact(self.run_id, str(self.scope.model))
        self.client.set_tag(self.run_id, "status", status)
        self.client.set_terminated(self.run_id, ENDINGS[status])


# Key of a tracker's settings -> its class, and the packages that the extra of that name installs.
TRACKERS: dict[str, tuple[Callable[[Scope], Tracker], tuple[str, ...]]] = {
    "tensorboard": (TensorBoard, ("tensorboard",)),
    "wandb": (WeightsAndBiases, ("wandb",)),
    "mlflow": (MLflow, ("mlflow", "sqlalchemy", "alembic")),
}


def chosen(metrics: Metrics) -> list[str]:
    """Return the trackers that an experiment enables."""
    asked = {
        "tensorboard": metrics.tensorboard,
        "wandb": metrics.wandb.mode != "disabled",
        "mlflow": metrics.mlflow.enabled,
    }
    return [name for name, wanted in asked.items() if wanted]


def require(metrics: Metrics) -> None:
    """Raise a ConfigError if a chosen tracker is not installed; import nothing."""
    for name in chosen(metrics):
        for package in TRACKERS[name][1]:
            spec = importlib.util.find_spec(package)
            if spec is None or spec.origin is None:  # no origin: a folder of that name
                raise ConfigError(f"metrics.{name}", f"needs {package}; {install(name)}")


def start(scope: Scope, rows: Iterable[Mapping[str, Any]]) -> list[Sink]:
    """Start the chosen trackers; `rows` are the rows of the run in metrics.jsonl so far."""
    asked = chosen(scope.experiment.metrics)
    if asked:
        scope.folder.mkdir(exist_ok=True)
    known = list(rows) if asked else []
    return [Sink(f"metrics.{name}", partial(TRACKERS[name][0], scope), known) for name in asked]
