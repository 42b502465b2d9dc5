"""Settings of how a run is operated: evaluation, checkpoints, metrics, process group.

They change neither the data nor the algorithm.
"""

import re
from typing import Any, ClassVar, Literal

from pydantic import field_validator

from trainer.config import secrets
from trainer.config.base import LARGE, MANY, Only, Section, setting


class Evaluation(Section):
    """Evaluation on the whole test set, divided among the ranks and not part of training time."""

    model: Literal["mean", "agreed"] = setting(
        "mean",
        help="which model to evaluate. mean: the average over clients, including values they hold "
        "locally (what the run saves at the end; costs wire bytes); agreed: the model all ranks "
        "share, which differs from the mean under gwpf, streaming and gaia",
    )

    every: int = setting(
        1,
        help="evaluate every this many rounds, and after the last",
        unit="rounds",
        ge=1,
        le=MANY,
    )
    batch_size: int = setting(
        500, help="test samples per forward pass", unit="samples", ge=1, le=MANY
    )
    at_start: bool = setting(False, help="evaluate before training as well, as round 0")
    target: float | None = setting(
        None, help="end the run when the accuracy (0 to 1) is above this", ge=0, lt=1
    )
    target_perplexity: float | None = setting(
        None, help="end the run when a language model's perplexity is below this", gt=1, le=LARGE
    )
    bn_batches: int = setting(
        0,
        help="training batches, over all ranks, from which BatchNorm's statistics are estimated "
        "again before each evaluation; 0: use the agreed ones",
        unit="batches",
        ge=0,
        le=MANY,
    )
    alignment: bool = setting(
        False,
        help="measure how far the clients' full gradients are from their mean in each evaluated "
        "round; costs one more exchange if the algorithm does not exchange them itself",
    )

    def passed(self, accuracy: float | None, perplexity: float | None) -> bool:
        """Return whether the scores of an evaluation, where there was one, are past a target."""
        lowest, most = self.target, self.target_perplexity
        return (lowest is not None and accuracy is not None and accuracy > lowest) or (
            most is not None and perplexity is not None and perplexity < most
        )


class Checkpoint(Section):
    """The saved state of a run, from which it resumes as if it had never stopped."""

    every: int = setting(
        0,
        help="checkpoint every this many rounds; 0: only after the last round of a phase and of "
        "the run (unless at_end is false), and when asked to stop",
        unit="rounds",
        ge=0,
        le=MANY,
    )
    keep: int = setting(
        2,
        help="complete checkpoints kept on disk; those after a phase's last round are always kept",
        unit="checkpoints",
        ge=1,
        le=MANY,
    )
    at_end: bool = setting(
        True,
        help="checkpoint after the last round too, so that the run can continue for more rounds; "
        "false with every=0: none after the last round of a phase either",
    )


class WandB(Section):
    """Weights & Biases. Its API key comes from WANDB_API_KEY or `wandb login`, never from here."""

    effects: ClassVar[dict[str, Only]] = dict.fromkeys(
        ("project", "entity", "model"), Only("mode", ("offline", "online"))
    )
    mode: Literal["disabled", "offline", "online"] = setting(
        "disabled",
        help="offline: write to the run folder, for a later `wandb sync`; online: send to the "
        "server",
    )
    project: str = setting("fedctl", help="project under which the run is listed")
    entity: str | None = setting(None, help="user or team of the project; empty: your default")
    model: bool = setting(False, help="log the final model as well, as an artifact")

    @field_validator("project")
    @classmethod
    def _project_fits(cls, project: str) -> str:
        if not re.fullmatch(r"[^/\\#?%:]{1,128}", project):
            raise ValueError("use 1 to 128 characters, none of / \\ # ? % :")
        return project


class MLflow(Section):
    """MLflow. Passwords and tokens come from its MLFLOW_TRACKING_... variables, never from here."""

    effects: ClassVar[dict[str, Only]] = dict.fromkeys(
        ("uri", "experiment", "model"), Only("enabled", (True,))
    )
    enabled: bool = setting(False, help="write the run to MLflow")
    uri: str | None = setting(
        None,
        help="tracking server or database, such as http://host:5000; empty: a database in the run "
        "folder",
        min_length=1,
    )
    experiment: str = setting(
        "fedctl", help="MLflow experiment under which the run is listed", min_length=1
    )
    model: bool = setting(False, help="log the final model as well, as an artifact")

    @field_validator("uri", mode="before")  # before the check of every setting: it knows a remedy
    @classmethod
    def _uri_has_no_secret(cls, uri: Any) -> Any:
        if isinstance(uri, str) and secrets.in_url(uri):
            raise ValueError(
                "contains a user name or password, which every tracker would show; remove it and "
                "set MLFLOW_TRACKING_USERNAME, _PASSWORD or _TOKEN instead"
            )
        return uri


class Metrics(Section):
    """Destinations of metrics besides metrics.jsonl: Prometheus (each rank), trackers (rank 0)."""

    effects: ClassVar[dict[str, Only]] = {"host": Only("port", but=(None,), remedy="0")}
    port: int | None = setting(
        0,
        help="rank k serves /metrics on port + k; 0: any free port, logged; empty: no server",
        ge=0,
        le=65535,
    )
    host: str = setting("127.0.0.1", help="address that the metrics server binds to", min_length=1)
    tensorboard: bool = setting(False, help="write TensorBoard event files into the run folder")
    wandb: WandB = setting(WandB(), help="Weights & Biases")
    mlflow: MLflow = setting(MLflow(), help="MLflow")


class Cluster(Section):
    """The process group and its threads; what Kubernetes needs is in the charts' values."""

    backend: Literal["auto", "gloo", "nccl"] = setting(
        "auto", help="collectives: nccl on GPUs, gloo otherwise"
    )
    timeout: float = setting(
        600.0,
        help="a collective that waits longer than this fails the run; a dead rank fails it at once",
        unit="seconds",
        gt=0,
        le=10 * 366 * 86400,
    )
    start_timeout: float = setting(
        600.0,
        help="ranks that have not all started within this time fail the run, and so do ranks that "
        "have not loaded the data this long after rank 0, which may take 6 hours to download it",
        unit="seconds",
        gt=0,
        le=10 * 366 * 86400,
    )
    threads: int = setting(
        1,
        help="compute threads of each rank on a CPU; 0: PyTorch's choice",
        unit="threads",
        ge=0,
        le=1024,
    )
