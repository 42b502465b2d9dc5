"""Owns the pictures of runs: the only module that draws, with matplotlib's objects, never pyplot.

Colours are mostly Okabe and Ito's, which colour-blind readers can tell apart; line styles say the
same in print.
"""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fedctl.runs import MEASUREMENT, Row, Run, uploaded
from trainer.metrics.catalog import TRAFFIC

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#777777")
STYLES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)))
KINDS = tuple(kind for kind in TRAFFIC if kind != MEASUREMENT)
KIND_COLOURS = dict(
    zip(KINDS, ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9"), strict=True)
)

# In SVG these two stand for the page's own text colour, which is light on a dark page.
INK, FAINT = "#1b1b1f", "#c9c9d1"
STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "font.family": "sans-serif",
    "font.size": 10,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "svg.hashsalt": "fedctl",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}

Panel = Callable[[Axes, list[Run]], None]


def colour(index: int) -> str:
    """The colour of the run at this place."""
    return COLOURS[index % len(COLOURS)]


def _style(index: int) -> Any:
    return STYLES[(index + index // len(COLOURS)) % len(STYLES)]


# ---------------------------------------------------------------------------------------------
# panels


def _accuracy(x_of: Callable[[Row], float], label: str, title: str) -> Panel:
    def draw(axes: Axes, runs: list[Run]) -> None:
        for index, run in enumerate(runs):
            xs = [x_of(row) for row in run.tests]
            ys = [row["test_accuracy_ratio"] for row in run.tests]
            axes.plot(xs, ys, color=colour(index), linestyle=_style(index), label=run.label)
            axes.plot(xs[-1], ys[-1], "o", color=colour(index), markersize=5)
        axes.set(title=title, xlabel=label)
        axes.set_xlim(left=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))

    return draw


def _frozen(axes: Axes, runs: list[Run]) -> None:
    for index, run in enumerate(runs):
        rounds = [row["round"] for row in run.rows]
        shares = [row["frozen_parameters_ratio"] for row in run.rows]
        axes.plot(rounds, shares, color=colour(index), linestyle=_style(index), label=run.label)
    axes.set(title="Parameters not sent, by round", xlabel="round")
    axes.set_xlim(left=0)
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _traffic(axes: Axes, runs: list[Run]) -> None:
    places = range(len(runs))
    left = [0.0] * len(runs)
    for kind in KINDS:
        widths = [uploaded(run.final, kind) / 1e6 for run in runs]
        if any(widths):
            axes.barh(places, widths, 0.5, left, color=KIND_COLOURS[kind], label=kind)
            left = [start + width for start, width in zip(left, widths, strict=True)]
    dense = [run.final["dense_equivalent_bytes_total"] / 1e6 for run in runs]
    axes.plot(
        dense, places, "|", color=INK, markersize=16, markeredgewidth=1.6, label="FedAvg in fp32"
    )
    axes.set_yticks(places, [run.label for run in runs])
    axes.set_ylim(max(len(runs), 3) - 0.45, -0.55)
    axes.set_xlim(0, max([*left, *dense]) * 1.05 or 1)
    axes.set(title="Uploaded, by kind", xlabel="MB")
    axes.grid(False, axis="y")
    axes.legend(
        loc="upper left", bbox_to_anchor=(-0.02, -0.28), ncols=3, fontsize=9, markerscale=0.6
    )


PANELS: dict[str, Panel] = {
    "rounds": _accuracy(lambda row: row["round"], "round", "Accuracy, by round"),
    "bytes": _accuracy(lambda row: uploaded(row) / 1e6, "MB", "Accuracy, by MB uploaded"),
    "time": _accuracy(lambda row: row["time_seconds"], "seconds", "Accuracy, by time"),
    "frozen": _frozen,
    "traffic": _traffic,
}


# ---------------------------------------------------------------------------------------------
# pictures


def svg(name: str, runs: list[Run]) -> str:
    """One panel as an SVG element that takes the page's text colour."""
    height = 3.1 if name != "traffic" else max(2.4, 1.5 + 0.45 * len(runs))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.4, height), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=name in ("rounds", "frozen")))
        PANELS[name](axes, runs)
        axes.set_title("")  # the page has a caption
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.S)
    text = re.sub(r'(<svg [^>]*?) height="[\d.]+pt"', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?) width="[\d.]+pt"', rf'\1 class="{name}"', text, count=1)
    return text.replace(INK, "currentColor").replace(FAINT, "var(--grid)").strip()


def png(path: Path, runs: list[Run]) -> None:
    """All panels in one picture."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13.5, 8), layout="constrained", dpi=110)
        grid = figure.subplots(2, 3)
        for axes, name in zip(grid.flat, PANELS, strict=False):
            axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=name in ("rounds", "frozen")))
            PANELS[name](axes, runs)
        _legend(grid[1][2], runs)
        figure.savefig(path, format="png", metadata={"Software": None})


def _legend(axes: Axes, runs: list[Run]) -> None:
    """The sixth field: which line is which run, and how it ended."""
    axes.axis("off")
    for index, run in enumerate(runs):
        state = "" if run.finished else ", unfinished"
        label = (
            f"{run.label}\n{100 * run.final['test_accuracy_ratio']:.1f} % after "
            f"{run.final['round']} rounds, {uploaded(run.final) / 1e6:,.2f} MB{state}"
        )
        axes.plot([], [], color=colour(index), linestyle=_style(index), label=label)
    axes.legend(loc="upper left", handlelength=3, labelspacing=1.0)
