"""Owns every metric: name, kind, unit, labels, help. The only place that writes a metric's name.

Floor 0: no torch and no Prometheus client, so that the CLI, dashboards and tests can read it.
A rank's /metrics serves each of them with the prefix; a row of metrics.jsonl holds the run-wide
value under the bare name (`payload_bytes_total.values` for a label). What only a rank has, its
memory, is in no row.
"""

from dataclasses import dataclass
from typing import Literal

PREFIX = "fedctl_"
PHASES = ("local", "select", "reduce", "apply", "evaluate")
TRAFFIC = ("values", "votes", "buffers", "control", "reconcile", "evaluation")


@dataclass(frozen=True)
class Metric:
    """One time series family; `unit` is spelled out, `labels` are its Prometheus labels."""

    name: str
    kind: Literal["counter", "gauge"]
    unit: str
    help: str
    labels: tuple[str, ...] = ()


CATALOG: tuple[Metric, ...] = (
    Metric(
        "info", "gauge", "", "Always 1; the labels name the run", ("run", "digest", "rank", "ranks")
    ),
    Metric("round", "gauge", "rounds", "Last finished round"),
    Metric("rounds_planned", "gauge", "rounds", "Rounds that the run will take"),
    Metric("time_seconds", "gauge", "seconds", "Training so far, without evaluation"),
    Metric(
        "federated_time_seconds",
        "gauge",
        "seconds",
        "Training so far if a round's clients had run side by side: the slowest one's work and the "
        "server's step of each round, without transfers",
    ),
    Metric("clients_sampled", "gauge", "clients", "Clients that trained in the last round"),
    Metric("local_steps_total", "counter", "steps", "Gradient steps taken by clients"),
    Metric("samples_total", "counter", "samples", "Training samples processed"),
    Metric(
        "messages_total",
        "counter",
        "messages",
        "Messages that a server and the sampled clients would have exchanged, up and down",
    ),
    Metric("train_loss", "gauge", "nats", "Mean training loss since the last evaluation"),
    Metric("test_loss", "gauge", "nats", "Loss of the mean model on the whole test set"),
    Metric(
        "test_accuracy_ratio",
        "gauge",
        "ratio",
        "Accuracy of the mean model on the whole test set",
    ),
    Metric(
        "gradient_variance",
        "gauge",
        "",
        "Mean over the round's clients of ||G_i - G||^2, G_i a client's gradient and G their mean",
    ),
    Metric(
        "gradient_deviation_ratio",
        "gauge",
        "ratio",
        "Root of the gradient variance over ||G||: 0 where all clients pull alike",
    ),
    Metric("parameters", "gauge", "parameters", "Scalar parameters of the model"),
    Metric(
        "frozen_parameters_ratio",
        "gauge",
        "ratio",
        "Share of parameters not transmitted in the last round",
    ),
    Metric(
        "labelled_frozen_ratio",
        "gauge",
        "ratio",
        "Share of parameters that the policy calls frozen, transmitted or not",
    ),
    Metric(
        "thawed_parameters",
        "gauge",
        "parameters",
        "Frozen parameters transmitted in the last round",
    ),
    Metric(
        "payload_bytes_total",
        "counter",
        "bytes",
        "Bytes that the sampled clients had to upload, whatever the collective",
        ("kind",),
    ),
    Metric(
        "wire_bytes_total",
        "counter",
        "bytes",
        "Bytes that the ranks' collectives send, by their algorithm's formula",
        ("kind",),
    ),
    Metric(
        "dense_equivalent_bytes_total",
        "counter",
        "bytes",
        "Bytes that FedAvg in fp32 would have had to upload for the same rounds",
    ),
    Metric(
        "phase_seconds_total",
        "counter",
        "seconds",
        "Time spent in a phase of the round",
        ("phase",),
    ),
    Metric(
        "device_memory_bytes",
        "gauge",
        "bytes",
        "Memory this rank holds: on a GPU what PyTorch has reserved, on a CPU what is resident",
    ),
)
