"""The report: right numbers in the terminal, one page that needs nothing else, a picture."""

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import Result

from fedctl.report import figures, rows, runs, table
from fedctl.report.groups import Spread
from fedctl.report.summary import megabytes, percent, seconds, summary, text_of, unsure
from tests.fedctl.processes import Start

Invoke = Callable[..., Result]
WriteRun = Callable[..., Path]

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Collects what a page would fetch, and checks that its elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.names: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        for name, value in attrs:
            local = (value or "").startswith("#")
            if name in ("src", "href", "xlink:href", "srcset", "data") and not local:
                self.fetched.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_one_run(fedctl: Invoke, write_run: WriteRun) -> None:
    result = fedctl("report", write_run("a"))
    assert result.exit_code == 0, result.output
    lines = [re.split(r"\s{2,}", line.strip()) for line in result.stdout.splitlines()]
    assert [
        "run",
        "accuracy",
        "loss",
        "rounds",
        "time",
        "sent MB",
        "wire MB",
        "saved",
    ] in lines  # neither votes nor frozen, which are zero
    row = ["fedavg-digits", "85.0 %", "0.100", "10", "5.0 s", "0.40", "0.30", "0.0 %"]
    assert row in lines
    assert f"\n{table.NOTE}\n" in result.stdout
    assert {path.name for path in Path("a").iterdir()} >= {"report.html", "report.png"}


def test_what_is_zero_in_all_runs_is_in_no_panel_and_no_column(
    fedctl: Invoke, write_run: WriteRun
) -> None:
    zero, frozen = write_run("a"), write_run("b", "gwpf-digits", frozen=0.5)
    for folders, shown in (([zero, zero], False), ([zero, frozen], True)):
        result = fedctl("report", *folders, "--out", "both")
        assert ("votes MB" in result.stdout, "frozen" in result.stdout) == (shown, shown)
        page = Path("both/report.html").read_text("utf-8")
        assert ("Share of parameters not sent" in page) == shown
        head = Path("both/table.csv").read_text("utf-8").splitlines()[0]
        assert "votes_bytes" in head and "frozen_parameters_ratio" in head


def test_many_times_as_much_is_not_a_negative_percentage() -> None:
    cell = table.RESULTS["versus"].cell
    assert cell(Spread.of([-57.654])) == "58.7x as much"
    assert cell(Spread.of([-0.5])) == "−50.0 %" and cell(Spread.of([0.75])) == "75.0 %"


def test_phases_are_shown_as_they_are_written() -> None:
    phases = [{"rounds": 100, "steps": 1, "epochs": None}, {"rounds": None, "steps": 5}]
    assert text_of(phases) == "[{rounds: 100, steps: 1}, {steps: 5}]"
    assert text_of([0.5, 1.0]) == "[0.5, 1.0]"


def test_several_runs_are_compared_with_the_first(fedctl: Invoke, write_run: WriteRun) -> None:
    first, other = write_run("a"), write_run("b", "gwpf-digits", frozen=0.5)
    result = fedctl("report", first, other, "--out", "both", "-o", "json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["page"] == "both/report.html" and Path("both/report.png").exists()
    one, two = report["runs"]
    assert (one["run"], two["run"]) == ("fedavg-digits", "gwpf-digits")
    assert one["saved_against_first_ratio"] == 0
    # 200,000 bytes of values and 6,250 of votes, of 400,000; the tests' traffic is not counted.
    assert two["uploaded_bytes"] == 206_250
    assert two["saved_against_first_ratio"] == two["saved_ratio"] == pytest.approx(0.484375)
    assert two["wire_bytes"] == 150_000 + 6_250 + 2_000 + 1_000  # everything that ranks sent
    assert two["frozen_parameters_ratio"] == 0.5


def test_time_over_a_slow_link_is_computed_from_each_ranks_share(write_run: WriteRun) -> None:
    run = runs.read(write_run("a"))
    assert summary(run)["link_100_seconds"] is None  # on one rank nothing travels
    run.experiment["ranks"] = 4
    run.final["wire_bytes_total"]["evaluation"] = 10**9  # no time is counted for tests
    # 5 seconds measured; 300,000 bytes of 4 ranks are 0.6 Mbit for each
    assert summary(run)["link_100_seconds"] == pytest.approx(5.0 + 0.006)
    run.experiment["sync"]["overlap"] = 3
    assert summary(run)["link_100_seconds"] is None  # what is hidden is not known


def test_the_page_fetches_nothing(fedctl: Invoke, write_run: WriteRun) -> None:
    runs = [write_run("a"), write_run("b", "gwpf-digits", 0.3), write_run("c", "apf-digits", 0.6)]
    assert fedctl("report", *runs, "--out", "all").exit_code == 0
    text = Path("all/report.html").read_text("utf-8")
    page = Page(text)
    assert page.open == [] and page.fetched == []
    assert page.names.count("svg") == 5
    assert not {"script", "link", "img", "iframe", "object"} & {*page.names}
    assert not re.search(r"url\(\s*['\"]?(?!#)|@import", text)
    for element in re.findall(r"<svg.*?</svg>", text, re.S):
        ElementTree.fromstring(element)  # noqa: S314  # our own page
    for said in ("gwpf-digits", "sync.threshold", "prefers-color-scheme: dark", "currentColor"):
        assert said in text


def test_uploads_have_only_kinds_that_a_real_client_would_send() -> None:
    assert set(figures.KINDS) == {"values", "votes", "buffers", "control", "reconcile"}
    row = {"payload_bytes_total": {"values": 7, "votes": 2, "moves": 100, "evaluation": 1000}}
    assert rows.uploaded(row) == 9


def test_the_page_of_one_run_lists_its_settings(fedctl: Invoke, write_run: WriteRun) -> None:
    assert fedctl("report", write_run("a")).exit_code == 0
    text = Path("a/report.html").read_text("utf-8")
    assert "<td>optimizer.lr</td><td>0.05</td>" in text


def test_the_page_escapes_what_users_wrote(fedctl: Invoke, write_run: WriteRun) -> None:
    folder = write_run("a")
    experiment = json.loads((folder / "experiment.json").read_text())
    experiment["description"] = "<script>alert(1)</script>"
    (folder / "experiment.json").write_text(json.dumps(experiment))
    assert fedctl("report", folder).exit_code == 0
    assert "<script" not in (folder / "report.html").read_text("utf-8")


def test_runs_of_the_same_name_go_by_their_folders(fedctl: Invoke, write_run: WriteRun) -> None:
    result = fedctl("report", write_run("a"), write_run("b"), "--out", "both", "-o", "json")
    assert [run["run"] for run in json.loads(result.stdout)["runs"]] == ["a", "b"]


def test_an_unfinished_run_is_reported_as_such(fedctl: Invoke, write_run: WriteRun) -> None:
    folder = write_run("a", finished=False)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"round": 11, "time_sec')  # cut off by a kill
    result = fedctl("report", folder)
    assert result.exit_code == 0 and "10 (unfinished)" in result.stdout


def test_rounds_played_again_after_a_resume_count_once(write_run: WriteRun) -> None:
    folder = write_run("a", finished=False)
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join([*lines, *lines[-2:]]))
    assert [row["round"] for row in runs.read(folder).rows] == list(range(1, 11))


def spoil(folder: Path, how: str) -> None:
    metrics = folder / "metrics.jsonl"
    match how:
        case "no experiment":
            (folder / "experiment.json").unlink()
        case "broken experiment":
            (folder / "experiment.json").write_text("{")
        case "no metrics":
            metrics.unlink()
        case "no rounds":
            metrics.write_text("")
        case "broken metrics":
            metrics.write_text("nonsense\n")


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ("no experiment", "a: not a run folder, it has no experiment.json"),
        ("broken experiment", "a/experiment.json: line 1: not JSON: "),
        ("no metrics", "a: incomplete, it has no metrics.jsonl yet"),
        ("no rounds", "a: incomplete, no round was evaluated yet"),
        ("broken metrics", "a/metrics.jsonl: line 1 is not a row of metrics"),
    ],
)
def test_unreadable_folders(fedctl: Invoke, write_run: WriteRun, how: str, problem: str) -> None:
    write_run("a")
    spoil(Path("a"), how)
    result = fedctl("report", "a", "--out", "report")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {problem}") and result.stderr.count("\n") == 1
    assert not Path("report").exists()


def test_no_such_folder(fedctl: Invoke) -> None:
    result = fedctl("report", "nowhere")
    assert (result.exit_code, result.stderr) == (2, "error: nowhere: no such run folder\n")


@pytest.mark.parametrize("words", [("report",), ("run", "--resume"), ("run", "x", "--out")])
@pytest.mark.parametrize("url", ["s3://experiments/mine", "gs://experiments/mine"])
def test_a_url_is_no_folder(fedctl: Invoke, words: tuple[str, ...], url: str) -> None:
    result = fedctl(*words, url)
    assert (result.exit_code, result.stderr) == (
        2,
        f"error: {url}: is a URL, and not a path on this machine; copy the run to a folder first "
        "(docs/storage.md)\n",
    )


def test_numbers_for_people() -> None:
    assert [megabytes(n) for n in (0, 123_456, 12_345_678, 1_234_567_890)] == [
        "0.00",
        "0.12",
        "12.3",
        "1,235",
    ]
    assert [percent(n) for n in (0.1234, -0.0000001, -0.5)] == ["12.3 %", "0.0 %", "−50.0 %"]
    assert [seconds(n) for n in (4.21, 185, 3723)] == ["4.2 s", "3:05", "1:02:03"]


def test_a_damaged_line_costs_its_own_row_and_is_told_once(
    fedctl: Invoke, write_run: WriteRun
) -> None:
    folder = write_run("a")
    lines = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b"round", b"\xffound")
    lines[5] = b'{"round": "six"}\n'
    (folder / "metrics.jsonl").write_bytes(b"".join(lines))
    result = fedctl("report", folder, "-o", "json")
    assert result.exit_code == 0, result.output
    assert result.stderr == (
        f"warning: {folder}/metrics.jsonl: line 4 and 1 more are not rows of metrics, and were "
        "left out\n"
    )
    assert [row["round"] for row in runs.read(folder).rows] == [1, 2, 3, 5, 7, 8, 9, 10]
    assert [row["round"] for row in runs.Tail(folder / "metrics.jsonl").rows()] == [
        *[1, 2, 3, 5, 7, 8, 9, 10],
        10,
    ]


def with_perplexity(folder: Path) -> Path:
    """Make the run one of a language model."""
    path = folder / "metrics.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()]
    for row in found:
        if row["test_loss"] is not None:
            row["test_perplexity"] = 100 / row["round"]
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return folder


def test_language_models_are_compared_by_perplexity(
    fedctl: Invoke, write_run: WriteRun, tmp_path: Path
) -> None:
    one = with_perplexity(write_run("a", "fedavg-text"))
    other = with_perplexity(write_run("b", "gwpf-text", frozen=0.5))
    result = fedctl("report", one, other, "--out", tmp_path / "report", "--mark", "0.5")
    assert result.exit_code == 0, result.output
    assert "perplexity" in result.stdout and "10.00" in result.stdout
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Perplexity by megabytes uploaded" in page and "Accuracy by" not in page
    assert "gwpf-text uploaded" in page and "above its perplexity" in page
    assert "50 %" not in re.sub(r"<table.*?</table>|<p.*?</p>", "", page, flags=re.S)
    table = (tmp_path / "report" / "table.csv").read_text()
    assert "test_perplexity" in table.splitlines()[0]


def test_the_page_of_a_language_model(fedctl: Invoke, write_run: WriteRun) -> None:
    folder = with_perplexity(write_run("a", "gwpf-text", frozen=0.5))
    fedctl("report", folder)
    page = (folder / "report.html").read_text()
    assert "Perplexity 10.00 after 10 rounds" in page and "Perplexity is exp(test loss)" in page


def test_a_language_model_beside_an_image_model_is_compared_by_accuracy(
    fedctl: Invoke, write_run: WriteRun, tmp_path: Path
) -> None:
    one, other = with_perplexity(write_run("a", "fedavg-text")), write_run("b")
    result = fedctl("report", one, other, "--out", tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert "Accuracy by megabytes" in (tmp_path / "report" / "report.html").read_text()
    assert "perplexity" in result.stdout


def test_perplexities_for_people() -> None:
    shown = [unsure(value) for value in (1.0, 9.1234, 91.234, 912.34, 9123.4, 1e12)]
    assert shown == ["1.000", "9.123", "91.23", "912.3", "9,123", "1e+12"]


@pytest.mark.parametrize(
    "content,told",
    [
        (b"text.usetex: True\n", ""),
        (b"backend: nonsense\n", ""),
        (b"\xff\xfe", "error: the report cannot be drawn: matplotlib cannot be loaded: "),
    ],
)
def test_a_report_is_drawn_whatever_the_users_matplotlib_is_set_to(
    write_run: WriteRun, start: Start, tmp_path: Path, content: bytes, told: str
) -> None:
    (tmp_path / "matplotlibrc").write_bytes(content)
    process = start("report", write_run("a"), environment={"MPLBACKEND": "nonsense"})
    _, stderr = process.communicate()
    assert stderr.count("\n") <= 1 and stderr.startswith(told)
    assert (process.returncode, (tmp_path / "a" / "report.png").exists()) == (bool(told), not told)
