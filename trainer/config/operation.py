"""Owns the settings of how a run is operated: evaluation, checkpoints, metrics, cluster."""

from typing import Literal

from trainer.config.base import Section, setting


class Evaluation(Section):
    """Tests on the whole test set, shared by the ranks, outside every timer."""

    model: Literal["mean", "agreed"] = setting(
        "mean",
        help="mean: over clients, with what they hold apart (the model a run ends with; the test "
        "costs wire bytes); agreed: what all ranks hold already, which differs under gwpf",
    )

    every: int = setting(
        1, help="evaluate after every so many rounds, and at the end", unit="rounds", ge=1
    )
    batch_size: int = setting(500, help="test samples per forward pass", unit="samples", ge=1)


class Checkpoint(Section):
    """The whole state of a run, so that it resumes as if never stopped."""

    every: int = setting(
        0, help="save after every so many rounds; 0: only when asked to stop", unit="rounds", ge=0
    )
    keep: int = setting(2, help="complete checkpoints that stay on disk", unit="checkpoints", ge=1)


class Metrics(Section):
    """Where each rank serves Prometheus metrics."""

    port: int | None = setting(
        0,
        help="rank k serves /metrics on port + k; 0 picks a free one and logs it; empty: no server",
        ge=0,
        le=65535,
    )
    host: str = setting("127.0.0.1", help="address that the metrics server binds to", min_length=1)


class Cluster(Section):
    """The process group; what Kubernetes needs joins this section with the charts."""

    backend: Literal["auto", "gloo", "nccl"] = setting(
        "auto", help="collectives: nccl on GPUs, gloo otherwise"
    )
    timeout: float = setting(
        600.0,
        help="a collective that waits for so long fails the run; a dead rank fails it at once",
        unit="seconds",
        gt=0,
    )
    threads: int = setting(
        1, help="compute threads of a rank on CPU; 0: PyTorch's choice", unit="threads", ge=0
    )
