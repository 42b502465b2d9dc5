"""The report on runs of any name, and on files in a run folder that are none."""

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from fedctl.report import figures, runs
from fedctl.report.groups import singles

Invoke = Callable[..., Result]
WriteRun = Callable[..., Path]


def named(folder: Path, name: str) -> Path:
    experiment = json.loads((folder / "experiment.json").read_text()) | {"name": name}
    (folder / "experiment.json").write_text(json.dumps(experiment))
    return folder


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (r"$\frac{$", r"$\frac{$"),  # to matplotlib a formula, and a wrong one
        ("_hidden", "_hidden"),  # which its legends would leave out
        ("\x1b[31m\a", r"\u001b[31m\u0007"),
        ("漢字", "漢字"),  # which its font does not have
        ("n" * 100_000, f"{'n' * runs.LONGEST_LABEL}..."),
    ],
    ids=["formula", "underscore", "controls", "no font", "long"],
)
def test_every_name_is_drawn_as_it_is(
    write_run: WriteRun, fedctl: Invoke, name: str, shown: str
) -> None:
    found = singles([runs.read(named(write_run("a"), name)), runs.read(write_run("b"))])
    assert found[0].label == shown
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert figures.png(found, ["bytes", "traffic"])
        drawn = figures.svg("traffic", found)
    assert shown in drawn
    result = fedctl("report", "a", "b", "--out", "o")
    assert (result.exit_code, result.stderr) == (0, "")


def test_the_legend_has_every_run(write_run: WriteRun) -> None:
    found = singles([runs.read(named(write_run("a"), "_hidden"))])
    with figures.drawing():
        axes = figures.Figure().add_subplot()
        figures.legend(axes, found)
    (text,) = axes.get_legend().get_texts()
    assert text.get_text().startswith("_hidden\n85.0 %")


def test_folders_whose_names_are_not_utf8(write_run: WriteRun, fedctl: Invoke) -> None:
    for name in (one := os.fsdecode(b"\xff\xfe"), other := os.fsdecode(b"\xff")):
        write_run(name)
    result = fedctl("report", one, other, "--out", "o")
    assert (result.exit_code, result.stderr) == (0, "")
    assert r"\udcff\udcfe" in Path("o/report.html").read_text("utf-8")


@pytest.mark.parametrize("name", ["experiment.json", "metrics.jsonl"])
@pytest.mark.parametrize("kind", ["a pipe", "a device"])
def test_what_has_no_end_is_not_read(
    write_run: WriteRun, fedctl: Invoke, name: str, kind: str
) -> None:
    path = write_run("a") / name
    path.unlink()
    os.mkfifo(path) if kind == "a pipe" else path.symlink_to("/dev/zero")
    result = fedctl("report", "a")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: a/{name}: ")
    assert f"is {kind}; name a regular file" in result.stderr


def test_pipes_among_a_runs_other_files_are_no_records(write_run: WriteRun) -> None:
    folder = write_run("a")
    (folder / "model.safetensors").unlink(missing_ok=True)
    (folder / "logs").mkdir(exist_ok=True)
    for name in ("model.safetensors", "logs/rank-0.json", "logs/rank-0.log"):
        os.mkfifo(folder / name)
    assert runs.first_rank(folder) is None and not runs.finished(folder)
    assert runs.last_line(folder / "logs/rank-0.log") == ""


def test_metrics_have_a_limit(
    write_run: WriteRun, fedctl: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run("a")
    monkeypatch.setattr(runs, "MOST_BYTES", 1000)
    result = fedctl("report", "a")
    assert result.exit_code == 2 and "a/metrics.jsonl: is larger than" in result.stderr


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xff", "cannot be read: not UTF-8 from byte 0 on; save it as UTF-8"),
        (b"{", "line 1: not JSON: expecting property name enclosed in double quotes"),
        (b"[]", "is not the experiment of a run: it has no name"),
        (b'{"name": "a", "rounds": 3, "ranks": 1.5}', "is not the experiment of a run: ranks is "),
        (b'{"name": "\\ud800x"}', "has half of a surrogate pair, which is no character"),
    ],
)
def test_wrong_experiments_are_told_in_words(
    write_run: WriteRun, fedctl: Invoke, content: bytes, problem: str
) -> None:
    (write_run("a") / "experiment.json").write_bytes(content)
    result = fedctl("report", "a")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: a/experiment.json: {problem}")
