"""Figures of runs. The only module that draws, with matplotlib's objects and never pyplot.

Colours are mostly Okabe and Ito's, which colour-blind readers can distinguish; line styles do the
same in print.
"""

import io
import logging
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fedctl.errors import RunError
from fedctl.report.groups import Group, Point
from fedctl.report.rows import Row, frozen, perplexity, uploaded
from fedctl.report.table import RESULTS
from trainer.metrics.catalog import NOT_UPLOADED, TRAFFIC

# It warns of a home folder that is read-only, and then works without one.
logging.getLogger("matplotlib").setLevel(logging.ERROR)

# Pictures go into files, whatever a user's notebook or terminal draws with.
os.environ.pop("MPLBACKEND", None)

try:
    import matplotlib
except (OSError, ValueError) as error:  # a matplotlibrc in the working folder that is no text
    raise RunError(f"the report cannot be drawn: matplotlib cannot be loaded: {error}") from None
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402
from matplotlib.ticker import LogFormatter, MaxNLocator, PercentFormatter  # noqa: E402

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#777777")
STYLES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)))
KINDS = tuple(kind for kind in TRAFFIC if kind not in NOT_UPLOADED)
KIND_COLOURS = dict(
    zip(KINDS, ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9"), strict=True)
)

# In SVG these two stand for the page's own text colour, which is light on a dark page.
INK, FAINT = "#1b1b1f", "#c9c9d1"
LEFT = {"backend", "backend_fallback", "interactive", "toolbar"}  # of pyplot, which draws nothing
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

# The user's own matplotlibrc does not count: it may ask for LaTeX, say, which need not be there.
STYLE = {k: v for k, v in matplotlib.rcParamsDefault.items() if k not in LEFT} | STYLE

Panel = Callable[[Axes, list[Group]], None]


def colour(index: int) -> str:
    """Return the colour of the run, or group of runs, at this index."""
    return COLOURS[index % len(COLOURS)]


def _style(index: int) -> Any:
    return STYLES[(index + index // len(COLOURS)) % len(STYLES)]


def _literal(label: str) -> str:
    """Return a label for matplotlib, which takes what is between two $ for a formula."""
    return label.replace("$", r"\$")


@contextmanager
def drawing() -> Iterator[None]:
    """Draw in fedctl's style; a sign that no font has is a box, and not a warning for each."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# ---------------------------------------------------------------------------------------------
# panels


def _score(x_of: Callable[[Row], float], label: str, by: str) -> Panel:
    """Return a panel of accuracy, or of perplexity if all runs are of language models."""

    def draw(axes: Axes, groups: list[Group]) -> None:
        language = of_language(groups)
        for index, group in enumerate(groups):
            points = group.curve(x_of, _perplexity if language else _accuracy)
            _line(axes, index, group, points)
            x, last = points[-1]
            axes.plot(x, last.mean, "o", color=colour(index), markersize=5)
        axes.set(title=f"{'Perplexity' if language else 'Accuracy'}, by {by}", xlabel=label)
        axes.set_xlim(left=0)
        if language:  # which falls from the size of the vocabulary
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
            axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
        else:
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))

    return draw


def of_language(groups: Sequence[Group]) -> bool:
    """Return whether all runs are of language models, which are compared by perplexity."""
    return all(group.language for group in groups)


def _accuracy(row: Row) -> float:
    return float(row["test_accuracy_ratio"])


def _perplexity(row: Row) -> float:
    found = perplexity(row)
    return math.nan if found is None else found  # of a round that diverged: a gap in the line


def _line(axes: Axes, index: int, group: Group, points: list[Point]) -> None:
    """Draw the mean over the group's runs, and a band from the smallest to the largest."""
    xs = [x for x, _ in points]
    means = [spread.mean for _, spread in points]
    axes.plot(xs, means, color=colour(index), linestyle=_style(index))
    if len(group.runs) > 1:
        least, most = [s.least for _, s in points], [s.most for _, s in points]
        axes.fill_between(xs, least, most, color=colour(index), alpha=0.18, linewidth=0)


def _frozen(axes: Axes, groups: list[Group]) -> None:
    for index, group in enumerate(groups):
        points = group.curve(lambda row: row["round"], frozen, tests=False)
        _line(axes, index, group, [point for point in points if point[0] > 0])
    axes.set(title="Parameters not sent, by round", xlabel="round")
    axes.set_xlim(left=0)
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _sent(kind: str) -> Callable[[Row], float]:
    return lambda row: uploaded(row, kind)


def _traffic(axes: Axes, groups: list[Group]) -> None:
    places = range(len(groups))
    left = [0.0] * len(groups)
    for kind in KINDS:
        widths = [group.final(_sent(kind)).mean / 1e6 for group in groups]
        if any(widths):
            axes.barh(places, widths, 0.5, left, color=KIND_COLOURS[kind], label=kind)
            left = [start + width for start, width in zip(left, widths, strict=True)]
    dense = [g.final(lambda row: row["dense_equivalent_bytes_total"]).mean / 1e6 for g in groups]
    axes.plot(
        dense, places, "|", color=INK, markersize=16, markeredgewidth=1.6, label="FedAvg in fp32"
    )
    axes.set_yticks(places, [_literal(group.label) for group in groups])
    axes.set_ylim(max(len(groups), 2) - 0.45, -0.55)
    axes.set_xlim(0, max([*left, *dense]) * 1.05 or 1)
    axes.set(title="Uploaded, by kind", xlabel="MB")
    axes.grid(False, axis="y")
    axes.legend(
        loc="upper left", bbox_to_anchor=(-0.02, -0.28), ncols=3, fontsize=9, markerscale=0.6
    )


PANELS: dict[str, Panel] = {
    "rounds": _score(lambda row: row["round"], "round", "round"),
    "bytes": _score(lambda row: uploaded(row) / 1e6, "MB", "MB uploaded"),
    "time": _score(lambda row: row["time_seconds"], "seconds", "time"),
    "frozen": _frozen,
    "traffic": _traffic,
}


# ---------------------------------------------------------------------------------------------
# pictures


def _panel(axes: Axes, name: str, groups: list[Group], marks: Sequence[float]) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=name in ("rounds", "frozen")))
    PANELS[name](axes, groups)
    marked = name in ("rounds", "bytes", "time") and not of_language(groups)  # marks: accuracies
    for mark in marks if marked else ():
        axes.axhline(mark, color=INK, linestyle=":", linewidth=1)
        axes.annotate(
            f"{100 * mark:g} %",
            (1, mark),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=8,
        )


def svg(name: str, groups: list[Group], marks: Sequence[float] = ()) -> str:
    """Return one panel as an SVG element that takes the page's text colour."""
    height = 3.1 if name != "traffic" else max(2.4, 1.5 + 0.45 * len(groups))
    with drawing():
        figure = Figure(figsize=(5.4, height), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        _panel(axes, name, groups, marks)
        axes.set_title("")  # the page has a caption
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.S)
    text = re.sub(r'(<svg [^>]*?) height="[\d.]+pt"', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?) width="[\d.]+pt"', rf'\1 class="{name}"', text, count=1)
    return text.replace(INK, "currentColor").replace(FAINT, "var(--grid)").strip()


def png(groups: list[Group], names: Sequence[str], marks: Sequence[float] = ()) -> bytes:
    """Return these panels as one PNG image, with a legend next to them."""
    columns = 3 if len(names) > 3 else 2
    rows = math.ceil((len(names) + 1) / columns)
    with drawing():
        figure = Figure(figsize=(4.5 * columns, 4 * rows), layout="constrained", dpi=110)
        fields = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes, name in zip(fields, names, strict=False):
            _panel(axes, name, groups, marks)
        for axes in fields[len(names) :]:
            axes.axis("off")
        legend(fields[len(names)], groups)
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def legend(axes: Axes, groups: list[Group]) -> None:
    """Draw the legend in the field after the panels: which line is which run, and how it ended."""
    language = of_language(groups)
    name = "perplexity " if language else ""
    lines: list[Line2D] = []
    labels: list[str] = []
    for index, group in enumerate(groups):
        result = RESULTS["perplexity" if language else "accuracy"]
        reached = group.final(_perplexity if language else _accuracy)
        rounds = group.final(lambda row: row["round"])
        seeds = f" ({len(group.runs)} seeds)" if len(group.runs) > 1 else ""
        state = "" if group.finished else ", unfinished"
        labels.append(
            f"{_literal(group.label)}{seeds}\n{name}{result.cell(reached)} after "
            f"{RESULTS['rounds'].cell(rounds)} rounds, "
            f"{group.final(uploaded).mean / 1e6:,.2f} MB{state}"
        )
        lines += axes.plot([], [], color=colour(index), linestyle=_style(index))
    size = min(10.0, 100 / len(groups))  # so that many lines fit
    made = axes.legend(
        lines,
        ["run"] * len(lines),  # for now: matplotlib leaves out a label that begins with _
        loc="upper left",
        handlelength=3,
        labelspacing=1.0,
        fontsize=size,
    )
    for text, label in zip(made.get_texts(), labels, strict=True):
        text.set_text(label)
