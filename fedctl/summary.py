"""Owns the few numbers that sum a run up, and how numbers are written for people."""

from typing import Any

from fedctl.runs import Run, saved, uploaded


def megabytes(count: float) -> str:
    """Bytes as MB with three digits or so: 0.12, 1.23, 12.3, 123."""
    value = count / 1e6
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}"


def percent(share: float) -> str:
    """A share in percent with one digit, a true minus, and no minus zero."""
    text = f"{100 * share:.1f}"
    return ("0.0" if text == "-0.0" else text.replace("-", "−")) + " %"


def seconds(value: float) -> str:
    """A duration: 4.2 s, 3:05 or 1:02:03."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def summary(run: Run, first: Run | None = None) -> dict[str, Any]:
    """The run in a dozen numbers; `first` is the run that uploads are compared with."""
    last = run.rows[-1]
    numbers: dict[str, Any] = {
        "run": run.label,
        "folder": str(run.folder),
        "finished": run.finished,
        "test_accuracy_ratio": run.final["test_accuracy_ratio"],
        "test_loss": run.final["test_loss"],
        "rounds": last["round"],
        "time_seconds": run.final["time_seconds"],
        "uploaded_bytes": uploaded(run.final),
        "dense_equivalent_bytes_total": run.final["dense_equivalent_bytes_total"],
        "saved_ratio": saved(run.final),
        "frozen_parameters_ratio": last["frozen_parameters_ratio"],
        "payload_bytes_total": run.final["payload_bytes_total"],
    }
    if first is not None:
        base = uploaded(first.final)
        numbers["saved_against_first_ratio"] = 1 - uploaded(run.final) / base if base else 0.0
    return numbers


def cells(numbers: dict[str, Any]) -> dict[str, str]:
    """The same, written for people: heading to text, in the order of the table."""
    unfinished = "" if numbers["finished"] else " (unfinished)"
    row = {
        "run": numbers["run"],
        "accuracy": percent(numbers["test_accuracy_ratio"]),
        "loss": f"{numbers['test_loss']:.3f}",
        "rounds": f"{numbers['rounds']}{unfinished}",
        "time": seconds(numbers["time_seconds"]),
        "sent MB": megabytes(numbers["uploaded_bytes"]),
        "votes MB": megabytes(numbers["payload_bytes_total"].get("votes", 0)),
        "saved": percent(numbers["saved_ratio"]),
        "frozen": percent(numbers["frozen_parameters_ratio"]),
    }
    if "saved_against_first_ratio" in numbers:
        row["vs first"] = percent(numbers["saved_against_first_ratio"])
    return row


def differing(runs: list[Run]) -> list[tuple[str, list[str]]]:
    """The settings that are not the same in all runs, with each run's value; not their names."""
    flat = [dict(leaves(run.experiment)) for run in runs]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    rows = [(key, [settings.get(key, "–") for settings in flat]) for key in keys]
    return [
        (key, values)
        for key, values in sorted(rows)
        if len(set(values)) > 1 and key not in ("name", "description")
    ]


def leaves(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Every setting by its dotted key, written for people."""
    pairs: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            pairs += leaves(value, f"{prefix}{key}.")
        else:
            pairs.append((prefix + key, _text(value)))
    return pairs


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "–" if value is None else str(value)


def table(rows: list[dict[str, str]]) -> None:
    """Print rows of cells to the terminal: a line for each run, or a column where that is wider."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 1000  # a pipe has no edge to wrap at
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if sum(widths) + 2 * len(widths) > console.width:
        lines = [list(line) for line in zip(*lines, strict=True)]
    grid = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for index, heading in enumerate(lines[0]):
        grid.add_column(heading, justify="right" if index else "left", overflow="fold")
    for line in lines[1:]:
        grid.add_row(*line)
    console.print(grid)
