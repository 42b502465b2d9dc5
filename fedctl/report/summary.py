"""Summary of a run in a few numbers, and the formats of numbers and settings for people."""

from math import isfinite
from typing import Any

from fedctl.report.rows import (
    LINK_MBITS,
    Row,
    frozen,
    idle,
    over_link,
    perplexity,
    saved,
    uploaded,
    wire,
)
from fedctl.report.runs import Run
from trainer.config import documents

MOST_WRITTEN = 1e9  # a perplexity from which on only the size of the number is shown


def megabytes(count: float) -> str:
    """Format bytes as MB with about three digits: 0.12, 1.23, 12.3, 123."""
    value = count / 1e6
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}"


def percent(share: float) -> str:
    """Format a share in percent with one digit, a true minus, and no minus zero."""
    text = f"{100 * share:.1f}"
    return ("0.0" if text == "-0.0" else text.replace("-", "−")) + " %"


def loss(value: float | None) -> str:
    """Format the loss of an evaluation; null, as NaN is written in JSON, was not finite."""
    return f"{value:.3f}" if value is not None and isfinite(value) else "not finite"


def unsure(value: float) -> str:
    """Format a perplexity with about four digits: 9.123, 91.23, 912.3, 9,123."""
    digits = 3 if value < 10 else 2 if value < 100 else 1 if value < 1000 else 0
    return f"{value:,.{digits}f}" if value < MOST_WRITTEN else f"{value:.3g}"


def score(row: Row) -> str:
    """Return the first number of an evaluation: perplexity if it is of language, or accuracy."""
    if (found := perplexity(row)) is not None:
        return f"perplexity {unsure(found)}"
    return f"accuracy {percent(row['test_accuracy_ratio'])}"


def seconds(value: float) -> str:
    """Format a duration: 4.2 s, 3:05 or 1:02:03."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def changes(run: Run) -> list[str]:
    """Return a line for each setting that was another in the first rounds of the run."""
    return [
        f"run {run.label}: from round {change.first_round} {change.key} "
        f"{text_of(change.was)} -> {text_of(change.now)}"
        for change in run.changes
    ]


def notes(run: Run) -> list[str]:
    """Return what a reader should know of the run: settings that were others, and its advice."""
    return changes(run) + ([f"run {run.label}: {run.advice}"] if run.advice else [])


def summary(run: Run, base_bytes: float | None = None) -> dict[str, Any]:
    """Return the run in a dozen numbers; `base_bytes` is the upload to compare its own with."""
    last = run.rows[-1]
    numbers: dict[str, Any] = {
        "run": run.label,
        "folder": str(run.folder),
        "finished": run.finished,
        "test_accuracy_ratio": run.final["test_accuracy_ratio"],
        "test_loss": run.final["test_loss"],
        "test_perplexity": perplexity(run.final),
        "rounds": last["round"],
        "time_seconds": run.final["time_seconds"],
        f"link_{LINK_MBITS}_seconds": over_link(run.final, run.experiment),
        "federated_time_seconds": run.final["federated_time_seconds"],
        "messages_total": run.final["messages_total"],
        "uploaded_bytes": uploaded(run.final),
        "wire_bytes": wire(run.final),
        "votes_bytes": uploaded(run.final, "votes"),
        "dense_equivalent_bytes_total": run.final["dense_equivalent_bytes_total"],
        "saved_ratio": saved(run.final),
        "frozen_parameters_ratio": frozen(last),
        "payload_bytes_total": run.final["payload_bytes_total"],
        "wire_bytes_total": run.final["wire_bytes_total"],
    }
    if run.changes:
        numbers["changes"] = changes(run)
    if run.advice:
        numbers["advice"] = run.advice
    if shares := idle(last):
        numbers["pipeline_idle_ratio"] = shares[0]
    if base_bytes is not None:
        ratio = 1 - uploaded(run.final) / base_bytes if base_bytes else 0.0
        numbers["saved_against_first_ratio"] = ratio
    return numbers


def differing(runs: list[Run]) -> list[tuple[str, list[str]]]:
    """Return the settings that differ between runs, with each run's value; not their names."""
    flat = [dict(leaves(run.experiment)) for run in runs]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    rows = [(key, [settings.get(key, "–") for settings in flat]) for key in keys]
    return [
        (key, values)
        for key, values in sorted(rows)
        if len(set(values)) > 1 and key not in ("name", "description")
    ]


def leaves(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return every setting by its dotted key, formatted for people."""
    pairs: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            pairs += leaves(value, f"{prefix}{key}.")
        else:
            pairs.append((prefix + key, text_of(value)))
    return pairs


def text_of(value: Any) -> str:
    """Format one setting's value for people."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):  # such as phases: as in a file, without what is not set
        return documents.dump(_given(value))
    return "–" if value is None else str(value)


def _given(value: Any) -> Any:
    """Return a value without the keys of its maps that have none."""
    if isinstance(value, dict):
        return {key: _given(item) for key, item in value.items() if item is not None}
    return [_given(item) for item in value] if isinstance(value, list) else value
