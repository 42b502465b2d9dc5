"""Runs that differ only by their seed: one line of a report, with their mean and spread."""

import csv
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from fedctl.local.progress import Plain
from fedctl.report import groups, runs
from fedctl.report.page import Layout
from fedctl.report.page import write as write_report
from fedctl.report.rows import uploaded
from fedctl.report.table import Table
from trainer.config.load import validate

Invoke = Callable[..., Result]
WriteRun = Callable[..., Path]


@pytest.fixture
def write_seed(write_run: WriteRun) -> WriteRun:
    """A run folder of this seed; its final accuracy and the rounds that it took are given."""

    def write(name: str, seed: int, accuracy: float, rounds: int = 10, frozen: float = 0.0) -> Path:
        preset = "gwpf-digits" if frozen else "fedavg-digits"
        folder = write_run(name, preset, frozen)
        experiment = json.loads((folder / "experiment.json").read_text()) | {"seed": seed}
        (folder / "experiment.json").write_text(validate(experiment).canonical())
        *rows, final = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        rows = rows[:rounds]
        final = rows[-1] | {"final": True, "test_loss": 0.5, "test_accuracy_ratio": accuracy}
        start = rows[0] | {"round": 0, "clients_sampled": 0, "frozen_parameters_ratio": None}
        start |= {"test_accuracy_ratio": 0.1, "test_loss": 2.3, "dense_equivalent_bytes_total": 0}
        start |= {"payload_bytes_total": {"evaluation": 160}, "time_seconds": 0.0}
        start |= {"federated_time_seconds": 0.0}
        lines = [json.dumps(row) + "\n" for row in (start, *rows, final)]
        (folder / "metrics.jsonl").write_text("".join(lines))
        return folder

    return write


@pytest.fixture
def six(write_seed: WriteRun) -> list[Path]:
    """Two settings, three seeds each; of the second, one run ended early."""
    return [
        *(write_seed(f"all/a,seed={seed}", seed, 0.8 + 0.01 * seed) for seed in (1, 2, 3)),
        *(
            write_seed(f"all/b,seed={seed}", seed, 0.9 + 0.02 * seed, 12 - 2 * seed, frozen=0.5)
            for seed in (1, 2, 3)
        ),
    ]


def test_mean_and_spread_are_those_of_the_runs(fedctl: Invoke, six: list[Path]) -> None:
    result = fedctl("report", *six, "--out", "both", "-o", "json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    first, second = report["groups"]
    assert (first["group"], second["group"]) == ("fedavg-digits", "gwpf-digits")
    assert first["seeds"] == second["seeds"] == [1, 2, 3] and len(report["runs"]) == 6
    values = [0.92, 0.94, 0.96]
    mean = sum(values) / 3
    std = math.sqrt(sum((value - mean) ** 2 for value in values) / 2)
    assert second["test_accuracy_ratio"] == pytest.approx(
        {"mean": mean, "std": std, "min": 0.92, "max": 0.96}
    )
    # 20,000 bytes of values and 625 of votes a round, over 10, 8 and 6 rounds, of 40,000 a round.
    assert second["uploaded_bytes"]["mean"] == pytest.approx(20_625 * 8)
    assert second["uploaded_bytes"]["std"] == pytest.approx(20_625 * 2)
    assert second["saved_ratio"] == pytest.approx(
        {"mean": 0.484375, "std": 0, "min": 0.484375, "max": 0.484375}
    )
    assert second["saved_against_first_ratio"]["mean"] == pytest.approx(1 - 20_625 * 8 / 400_000)
    assert second["messages_total"]["mean"] == 2 * 10 * 8


def test_the_table_says_it_to_people_and_programs(fedctl: Invoke, six: list[Path]) -> None:
    result = fedctl("report", "all")  # the folder that holds the six
    assert result.exit_code == 0, result.output
    assert "82.0 ± 1.0 %" in result.stdout and "94.0 ± 2.0 %" in result.stdout
    assert "table    all/table.csv, all/table.md\n" in result.stdout
    one, two = csv.DictReader(Path("all/table.csv").read_text().splitlines())
    assert (one["run"], one["seeds"], two["seeds"]) == ("fedavg-digits", "3", "3")
    assert float(two["test_accuracy_ratio"]) == pytest.approx(0.94)
    assert float(two["test_accuracy_ratio std"]) == pytest.approx(0.02)
    assert float(one["uploaded_bytes"]) == 400_000
    assert float(two["rounds"]) == 8 and float(two["rounds std"]) == 2
    lines = Path("all/table.md").read_text().splitlines()
    assert lines[0].startswith("| run | seeds | accuracy |") and lines[1].startswith("| --- | ---:")
    assert "| gwpf-digits | 3 | 94.0 ± 2.0 % |" in lines[3]
    page = Path("all/report.html").read_text("utf-8")
    assert "All 6 runs, one by one" in page and "b,seed=3" in page
    assert "on average over up to 3 seeds" in page


def test_a_sweeps_author_chooses_columns_and_figures(six: list[Path], tmp_path: Path) -> None:
    found = groups.grouped(runs.read_all(six))
    columns = [
        ("Algorithm", "algorithm.name"),
        ("N", "clients"),
        ("C", "participation"),
        ("Steps", "schedule.phases.0.steps"),
        ("Seeds", "seed"),
        ("Message count", "messages"),
        ("Test accuracy", "accuracy"),
    ]
    assert Table(found, columns).cells()[1] == {
        "Algorithm": "fedavg",
        "N": "10",
        "C": "1.0",
        "Steps": "5",
        "Seeds": "1, 2, 3",
        "Message count": "160 ± 40",
        "Test accuracy": "94.0 ± 2.0 %",
    }
    page, picture, *_ = write_report(found, tmp_path / "out", Layout(["rounds"], columns))
    text = page.read_text("utf-8")
    assert text.count("<svg") == 3 and "Accuracy by seconds" not in text
    assert picture.read_bytes().startswith(b"\x89PNG") and "Message count" in text


def test_curves_are_the_mean_and_the_band_at_rounds_that_all_have(six: list[Path]) -> None:
    _, second = groups.grouped(runs.read_all(six))
    points = second.curve(lambda row: row["round"], lambda row: row["test_accuracy_ratio"])
    *common, (end, last) = points
    assert [x for x, _ in common] == [0, 2, 4, 6]  # tested every two rounds; one ended after 6
    assert common[0][1].mean == 0.1 and common[1][1].mean == pytest.approx(0.9 - 0.5 / 2)
    assert end == 8 and (last.least, last.most) == (0.92, 0.96)
    sent = second.curve(uploaded, lambda row: row["test_accuracy_ratio"])
    assert [x for x, _ in sent][:2] == [0, 2 * 20_625]


def test_each_run_can_stand_by_itself(fedctl: Invoke, six: list[Path]) -> None:
    report = json.loads(fedctl("report", *six, "--each", "--out", "out", "-o", "json").stdout)
    assert "groups" not in report
    assert [run["run"] for run in report["runs"]][:2] == ["a,seed=1", "a,seed=2"]


def test_groups_of_one_name_go_by_their_folders(write_seed: WriteRun) -> None:
    folders = [write_seed(f"lr={lr},seed={seed}", seed, 0.9) for lr in (1, 2) for seed in (1, 2)]
    for folder in folders[2:]:
        experiment = json.loads((folder / "experiment.json").read_text())
        experiment["optimizer"]["lr"] = 2.0
        (folder / "experiment.json").write_text(validate(experiment).canonical())
    assert [group.label for group in groups.grouped(runs.read_all(folders))] == ["lr=1", "lr=2"]


def test_plain_progress_ends_with_the_last_round_though_it_came_early(
    write_seed: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_seed("a", 1, 0.9, rounds=6)
    experiment = validate(json.loads((folder / "experiment.json").read_text()))

    plain = Plain(experiment, sys.stdout)
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        plain.row(json.loads(line))
    said = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    assert said == ["0/10", "6/10"]


def test_a_mark_is_drawn_in_the_figures_of_accuracy(fedctl: Invoke, six: list[Path]) -> None:
    result = fedctl("report", *six, "--out", "marked", "--mark", "0.9924")
    assert result.exit_code == 0, result.output
    assert Path("marked/report.html").read_text().count("99.24 %") == 3
    wrong = fedctl("report", *six, "--mark", "99")
    assert wrong.exit_code == 2 and "--mark" in wrong.stderr


@pytest.mark.parametrize("wrong", [None, float("nan")])
def test_a_loss_that_is_not_finite_is_a_dash_and_null(
    fedctl: Invoke, six: list[Path], wrong: float | None
) -> None:
    """Of any of a group's runs, also where it is NaN, as earlier versions wrote it."""
    path = six[1] / "metrics.jsonl"
    *rows, final = map(json.loads, path.read_text().splitlines())
    lines = [json.dumps(row) + "\n" for row in (*rows, final | {"test_loss": wrong})]
    path.write_text("".join(lines))
    text = fedctl("report", *six, "--out", "text")
    assert text.exit_code == 0, text.output
    first = next(line for line in text.stdout.splitlines() if " fedavg-digits " in line)
    assert " – " in first
    result = fedctl("report", *six, "--out", "both", "-o", "json")
    report = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(name))
    assert "test_loss" not in report["groups"][0] and "test_loss" in report["groups"][1]
    assert [run["test_loss"] for run in report["runs"]] == [0.5, None, 0.5, 0.5, 0.5, 0.5]
