"""Pages for users outside docs/papers: their commands would start, and their examples are whole."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from fedctl import bundled
from fedctl.chart import helm
from fedctl.cli import main
from trainer.config.load import load

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/checkpoints.md", "docs/storage.md", "docs/trackers.md")
WEIGHTS = "model.weights="


def commands(page: str) -> list[list[str]]:
    """The words of each line of a block of code that starts with fedctl; notes are set far off."""
    text = (ROOT / page).read_text("utf-8")
    blocks = "".join(re.findall(r"^```\n(?s:.*?)^```|^    .+\n", text, re.MULTILINE))
    lines = re.findall(r"^ *fedctl (.+)$", blocks, re.MULTILINE)
    return [shlex.split(re.split(r"  +| [|>] | && ", line)[0], comments=True) for line in lines]


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_would_start(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiment.yaml").write_text(example())
    assert commands(page) or page == "docs/storage.md"
    for name, *words in commands(page):
        with main.make_context("fedctl", [name]) as parent:  # else the help would lose its -h
            main.commands[name].make_context(name, list(words), parent)
        sets = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
        for weights in (text.removeprefix(WEIGHTS) for text in sets if text.startswith(WEIGHTS)):
            Path(weights).parent.mkdir(parents=True)
            Path(weights).touch()
        if name in ("run", "render", "lint", "submit", "show", "validate") and words[0][0] != "-":
            load(words[0], sets=sets, presets=bundled.PRESETS)


def example() -> str:
    """The experiment file that the README shows."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    (found,) = [block for block in blocks if "extends:" in block]
    return str(found)


def test_the_experiment_of_the_readme_is_a_whole_file(tmp_path):
    (tmp_path / "experiment.yaml").write_text(example())
    experiment, origins = load(tmp_path / "experiment.yaml", presets=bundled.PRESETS)
    assert {"sync.threshold", "rounds"} <= {k for k, o in origins.items() if o.startswith("file")}
    assert experiment.name == "my-digits"


def test_a_branch_of_the_page_on_checkpoints_starts_at_the_end_of_a_phase():
    (line,) = [words for words in commands("docs/checkpoints.md") if WEIGHTS in str(words)]
    (first,) = [
        words for words in commands("docs/checkpoints.md") if words[1] == "post-local-sgd-digits"
    ]
    experiment, _ = load(first[1], presets=bundled.PRESETS)
    assert f"round-{experiment.schedule.phases[0].rounds:06}/" in line[-1]


def test_the_script_that_fetches_tools_says_what_it_is_for():
    done = subprocess.run([ROOT / "scripts/tools"], capture_output=True, text=True)
    assert done.returncode == 1 and "finds or fetches a program" in done.stderr
    assert "scripts/tools helm" in done.stderr and "scripts/tools helm" in helm.HOW
