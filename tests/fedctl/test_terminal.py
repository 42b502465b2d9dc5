"""What comes from outside cannot control the terminal, and a reader that leaves ends no run."""

import ast
import io
import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from fedctl import terminal
from fedctl.cluster.watch.logs import Line
from fedctl.commands.observe import writer

Invoke = Callable[..., Result]
ROOT = Path(__file__).parent.parent.parent
HOSTILE = [
    "\x1b[2J", "\r", "\x9b31m", "\u202e", "\u2066", "\x08", "\x1b]0;title\x07", "\udce9", "\u2028"
]  # fmt: skip
BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
FEDCTL = [sys.executable, "-c", "from fedctl.cli import main; main()"]


@given(st.text(st.characters(exclude_categories=[])))
def test_nothing_that_controls_a_terminal_is_left(text: str) -> None:
    shown = terminal.plain(text)
    rest = [sign for sign in shown if sign not in "\n\t"]
    assert not {unicodedata.category(sign) for sign in rest} & {"Cc", "Cs", "Zl", "Zp"}
    assert not {unicodedata.bidirectional(sign) for sign in rest} & BIDI
    shown.encode()
    assert terminal.plain(shown) == shown


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_json_stays_json_and_means_the_same(text: str) -> None:
    assert json.loads(terminal.plain(json.dumps([text], ensure_ascii=False))) == [text]


def test_what_people_write_stays_as_it_is() -> None:
    for text in ("digits, 10 %", "café", "μ – │ ✓", "名前", "שלום", "👩‍👧 e\u0301", "a\tb\nc"):
        assert terminal.plain(text) == text


@pytest.mark.parametrize("sign", HOSTILE)
def test_no_command_lets_it_through(fedctl: Invoke, tmp_path: Path, sign: str) -> None:
    (tmp_path / "mine.yaml").write_text(f"extends: {json.dumps(f'a{sign}b')}\n")
    for words in (
        ["validate", f"a{sign}b.yaml"],
        ["validate", f"a{sign}b"],
        ["validate", "mine.yaml"],
        ["validate", "fedavg-digits", "--set", f"description=a{sign}b: {{"],
        ["validate", "fedavg-digits", "--set", f"a{sign}b=3"],
        ["explain", f"a{sign}b"],
        ["run", "--resume", f"a{sign}b"],
        ["report", f"a{sign}b"],
        ["sweep", f"a{sign}b"],
        ["status", f"a{sign}b"],
        [f"a{sign}b"],
    ):
        result = fedctl(*words)
        assert result.exit_code and result.stderr.count("\n") == 1, (words, result.output)
        assert sign not in result.output


def test_an_error_has_an_end(fedctl: Invoke) -> None:
    error = fedctl("report", "x" * 10**6).stderr
    assert error.endswith("xxx ...\n") and len(error) < 3000


@pytest.mark.parametrize("sign", HOSTILE)
def test_logs_and_tables_are_plain(sign: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = Line(3, "digits-3", f"loss{sign} 0.5")
    for output, labelled in (("text", False), ("text", True), ("json", False)):
        writer(output, labelled)(line)
    terminal.console().print(terminal.grid([f"ru{sign}n"], [[f"na{sign}me"]], ()))
    terminal.tell(f"rank 0 waits: {sign}", sys.stdout)
    shown = capsys.readouterr().out
    assert sign not in shown and "3 │ loss" in shown and shown.count("loss") == 3


def test_everything_is_printed_through_these() -> None:
    """`echo` of the commands, and `tell`; the modules that only print files of the tree aside."""
    found: dict[str, set[str]] = {"print": set(), "click.echo": set(), "click.secho": set()}
    for path in (ROOT / "fedctl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and (name := ast.unparse(node.func)) in found:
                found[name].add(path.relative_to(ROOT).as_posix())
    assert found == {
        "print": {"fedctl/terminal.py", "fedctl/reference.py", "fedctl/chart/files.py"},
        "click.echo": {"fedctl/commands/output.py"},
        "click.secho": set(),
    }


@pytest.mark.parametrize("words", [["presets"], ["explain"], ["schema"], ["--help"]])
def test_a_reader_that_leaves_is_no_error(words: list[str]) -> None:
    reader, out = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*FEDCTL, *words], stdout=out, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    os.close(out)
    assert done.stderr == ""


@pytest.mark.parametrize(
    "words", [["presets"], ["explain", "sync"], ["show", "gwpf-digits", "--why"]]
)
def test_texts_are_as_wide_as_the_terminal(
    fedctl: Invoke, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setattr("fedctl.commands.experiments.width", lambda most=1000: min(most, 70))
    lines = fedctl(*words).stdout.splitlines()
    # The value of a setting stays on its line.
    assert 60 < max(len(line) for line in lines if not line.startswith("description:")) <= 70


def test_the_width_is_that_of_a_terminal_and_fixed_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    assert terminal.width(100) == 100
    monkeypatch.setattr(terminal.sys, "stdout", Lines())
    assert terminal.width(100) == 70 and terminal.width(60) == 60
    monkeypatch.setenv("COLUMNS", "1")
    assert terminal.width(100) == 20


class Lines(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("words", [["presets"], ["--help"], ["run", "--help"], ["--version"]])
def test_a_full_disk_is_one_line(words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*FEDCTL, *words], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
    assert (done.returncode, done.stderr) == (1, "error: the output: no space left on device\n")


def test_a_run_continues_when_nobody_reads_its_progress() -> None:
    script = (
        "import sys\n"
        "from fedctl.local.progress import Plain\n"
        "from trainer.config.schema import Experiment\n"
        "view = Plain(Experiment(), sys.stdout)\n"
        "for number in range(3): view.notice(str(number))\n"
        "print('the report')\n"
        "print('trained', file=sys.stderr)\n"
    )
    reader, out = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=out, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    os.close(out)
    told = "the output cannot be written; the work continues\ntrained\n"
    assert (done.returncode, done.stderr) == (0, told)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_signs_that_the_output_cannot_encode_end_no_command(
    write_run: Callable[..., Path], tmp_path: Path, encoding: str
) -> None:
    """Tables, what `echo` prints, and progress; a dash is in many of them."""
    write_run("done")
    (tmp_path / "mine.yaml").write_text("description: \u540d\u524d\n", "utf-8")
    progress = "from fedctl.terminal import tell; import sys; tell('left \u2013', sys.stdout)"
    called = f"import fedctl.terminal as t; t.write_any_sign(); {progress}"
    for command in (
        [*FEDCTL, "report", "done"],
        [*FEDCTL, "show", "mine.yaml"],
        [sys.executable, "-c", called],
    ):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding}
        done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=environment)
        assert (done.returncode, done.stderr) == (0, b"")
        done.stdout.decode("utf-8" if encoding == "ascii" else encoding)
    assert done.stdout == b"left \\u2013\n"
