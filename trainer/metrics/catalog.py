"""Catalogue of all metrics: name, kind, unit, labels, help. Metrics are named nowhere else.

Layer 0: it needs neither torch nor a Prometheus client, so the CLI, dashboards and tests can read
it. A rank's /metrics serves each metric with the prefix; a row of metrics.jsonl holds the run-wide
value under the bare name (`payload_bytes_total.values` for a label); null is a value that was not
measured, or not finite (a loss beside an accuracy). A metric that only a rank has, its memory, is
in no row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

PREFIX = "fedctl_"
PHASES = ("local", "select", "reduce", "apply", "evaluate")
PIPELINE = "pipeline"  # activations and their gradients; only runs with pipelines have it
NODE = "node"  # averages within nodes; only runs with nodes have it
SOME = (PIPELINE, NODE)
TRAFFIC = ("values", "votes", "buffers", "control", "moves", "reconcile", "evaluation", *SOME)

# Traffic that training does not need of a client: measurements, and what ranks move among them.
NOT_UPLOADED = ("evaluation", "moves", *SOME)


def uploaded(payload: Mapping[str, int]) -> int:
    """Return the bytes that clients had to upload for training, of payload bytes by kind."""
    return sum(count for kind, count in payload.items() if kind not in NOT_UPLOADED)


@dataclass(frozen=True)
class Metric:
    """One time series family; `unit` is spelled out, `labels` are its Prometheus labels."""

    name: str
    kind: Literal["counter", "gauge"]
    unit: str
    help: str
    labels: tuple[str, ...] = ()
    own: bool = False  # only a rank has it, so it is in no row
    optional: bool = False  # a row has it only if it was measured


def _measure(
    kind: Literal["counter", "gauge"],
    unit: str,
    help: str,
    labels: tuple[str, ...] = (),
    **where: bool,
) -> Any:
    """Declare a field of `Row` with the properties of its metric; the field's name is its name."""
    return field(
        default=None, metadata={"kind": kind, "unit": unit, "help": help, "labels": labels, **where}
    )


@dataclass(kw_only=True)
class Row:
    """The values of a round; None: not measured this time. Each field is a metric."""

    round: int = _measure("gauge", "rounds", "Last finished round")
    rounds_planned: int | None = _measure("gauge", "rounds", "Rounds that the run will take")
    time_seconds: float | None = _measure("gauge", "seconds", "Training so far, without evaluation")
    federated_time_seconds: float | None = _measure(
        "gauge",
        "seconds",
        "Simulated parallel time, as if a round's clients had run side by side: the slowest one's "
        "work and the server's step of each round, without transfers",
    )
    clients_sampled: int | None = _measure(
        "gauge", "clients", "Clients that trained in the last round"
    )
    local_steps_total: int | None = _measure("counter", "steps", "Gradient steps taken by clients")
    samples_total: int | None = _measure(
        "counter", "samples", "Training samples processed; of text, windows"
    )
    messages_total: int | None = _measure(
        "counter",
        "messages",
        "Messages that a server and the sampled clients would have exchanged, up and down",
    )
    messages_formed_total: int | None = _measure(
        "counter",
        "messages",
        "Clients' messages that were coded one by one; the others were added up within their rank, "
        "and their payload is what each client would have uploaded",
    )
    train_loss: float | None = _measure(
        "gauge", "nats", "Mean training loss since the last evaluation"
    )
    test_loss: float | None = _measure(
        "gauge", "nats", "Loss of the mean model on the whole test set"
    )
    test_accuracy_ratio: float | None = _measure(
        "gauge",
        "ratio",
        "Accuracy of the mean model on the whole test set; of a language model: share of next "
        "tokens that the model ranks first",
    )
    test_perplexity: float | None = _measure(
        "gauge",
        "",
        "exp(test loss) of a language model: it is as unsure as between so many tokens",
        optional=True,
    )
    gradient_variance: float | None = _measure(
        "gauge",
        "",
        "Mean over the round's clients of ||G_i - G||^2, G_i a client's gradient and G their mean",
        optional=True,
    )
    gradient_deviation_ratio: float | None = _measure(
        "gauge",
        "ratio",
        "Root of the gradient variance over ||G||: 0 if all clients' gradients are the same",
        optional=True,
    )
    parameters: int | None = _measure("gauge", "parameters", "Scalar parameters of the model")
    frozen_parameters_ratio: float | None = _measure(
        "gauge", "ratio", "Share of parameters not transmitted in the last round"
    )
    labelled_frozen_ratio: float | None = _measure(
        "gauge", "ratio", "Share of parameters that the policy calls frozen, transmitted or not"
    )
    thawed_parameters: int | None = _measure(
        "gauge", "parameters", "Frozen parameters transmitted in the last round"
    )
    payload_bytes_total: dict[str, int] | None = _measure(
        "counter",
        "bytes",
        "Bytes that the sampled clients had to upload, whatever the collective",
        ("kind",),
    )
    wire_bytes_total: dict[str, int] | None = _measure(
        "counter",
        "bytes",
        "Bytes that ranks sent: those of the tensors passed to the collectives, each by what its "
        "algorithm sends",
        ("kind",),
    )
    dense_equivalent_bytes_total: int | None = _measure(
        "counter",
        "bytes",
        "Bytes that FedAvg in fp32 would have had to upload for the same rounds",
    )
    rank_samples_total: dict[str, int] | None = _measure(
        "counter",
        "samples",
        "Training samples, by the rank, or the pipeline of ranks, that processed them",
        ("trained_by",),
    )
    rank_idle_seconds_total: dict[str, float] | None = _measure(
        "counter",
        "seconds",
        "Seconds by which a rank's clients finished before those of the longest rank",
        ("trained_by",),
    )
    pipeline_idle_ratio: float | None = _measure(
        "gauge",
        "ratio",
        "Share of the time of the last round's gradients in which a rank of a pipeline did not "
        "compute but waited for others; in rows the mean over the ranks",
        optional=True,
    )
    pipeline_ideal_idle_ratio: float | None = _measure(
        "gauge",
        "ratio",
        "The same if all stages took equally long and messages no time: (S - 1) / (M + S - 1)",
        optional=True,
    )
    phase_seconds_total: dict[str, float] | None = _measure(
        "counter", "seconds", "Time spent in a phase of the round", ("phase",)
    )
    hidden_exchange_seconds_total: float | None = _measure(
        "counter",
        "seconds",
        "Time in which an exchange was under way while this rank's clients trained, to within a "
        "local step (sync.overlap); what it took beyond that is in the phase reduce",
        optional=True,
    )
    device_memory_bytes: int | None = _measure(
        "gauge",
        "bytes",
        "Memory this rank holds: on a GPU what PyTorch has reserved, on a CPU what is resident",
        own=True,
    )
    final: bool = False  # of the final model, not of the round; this field is not a metric

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Row":
        """A row of metrics.jsonl, read back; what is no metric any more is left out."""
        known = {metric.name for metric in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    def values(self) -> dict[str, Any]:
        """Return the row for metrics.jsonl, by name, without metrics that only a rank has."""
        row = {
            metric.name: getattr(self, metric.name)
            for metric in CATALOG[1:]
            if not metric.own and not (metric.optional and getattr(self, metric.name) is None)
        }
        return row | {"final": True} if self.final else row


CATALOG: tuple[Metric, ...] = (
    Metric(
        "info",
        "gauge",
        "",
        "Always 1; the labels name the run, and the rank's place in its pipeline (0 without one)",
        ("run", "digest", "rank", "ranks", "stage"),
    ),
    *(Metric(name=f.name, **f.metadata) for f in fields(Row) if f.metadata),
)
