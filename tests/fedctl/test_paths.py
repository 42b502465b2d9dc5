"""Paths that people give: ~ is expanded everywhere, and what can be no path is one line, exit 2."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.fedctl.test_cli_run_refusals import refused, with_model
from trainer.config.load import load

Invoke = Callable[..., Result]
WriteRun = Callable[..., Path]

NOBODYS = "~nosuchuser/x.pt"  # .pt: what model.weights may be
PROBLEM = f"'{NOBODYS}' cannot be a path (no home folder is known for ~nosuchuser); check the path"


def setting(key: str) -> list[str]:
    return ["--set", f"{key}={NOBODYS}"]


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["run", "gwpf-digits", *setting("model.weights")], "model.weights"),
        (["run", "gwpf-mnist", *setting("data.path")], "data.path"),
        (["run", "homework-b1", *setting("data.path")], "data.path"),
        (["run", "local-sgd-imagenet", *setting("data.path")], "data.path"),
        (["run", "fedavg-text", *with_model(NOBODYS)], "data.tokenizer.model"),
        (["sweep", "digits-freezing", *setting("model.weights")], "model.weights"),
        (["run", "extends.yaml"], f"extends.yaml: extends: {NOBODYS}"),
        (["sweep", "base.yaml"], NOBODYS),
        (["run", NOBODYS], NOBODYS),
        (["sweep", NOBODYS], NOBODYS),
        (["show", NOBODYS], NOBODYS),
        (["validate", NOBODYS], NOBODYS),
        (["values", NOBODYS], NOBODYS),
        (["run", "gwpf-digits", "--out", NOBODYS], "Invalid value for '--out'"),
        (["run", "--resume", NOBODYS], "Invalid value for '--resume'"),
        (["sweep", "digits-freezing", "--out", NOBODYS], "Invalid value for '--out'"),
        (["report", NOBODYS], "Invalid value for 'RUN...'"),
        (["report", ".", "--out", NOBODYS], "Invalid value for '--out'"),
        (["values", "gwpf-digits", "--values", NOBODYS], "Invalid value for '--values'"),
        (["fetch", "digits", "--out", NOBODYS], "Invalid value for '--out'"),
    ],
)
def test_the_home_of_nobody(fedctl: Invoke, tmp_path: Path, words: list[str], key: str) -> None:
    (tmp_path / "extends.yaml").write_text(f"extends: {NOBODYS}\n")
    (tmp_path / "base.yaml").write_text(f"base: {NOBODYS}\nseeds: 2\n")
    there = set(tmp_path.iterdir())
    assert refused(fedctl(*words)).startswith(f"{key}: {PROBLEM}")
    assert set(tmp_path.iterdir()) == there


@pytest.mark.parametrize(
    ("weights", "problem"),
    [("none.pt", "none.pt does not exist"), ("folder.pt", "folder.pt is not a file")],
)
def test_the_weights_must_be_there(
    fedctl: Invoke, tmp_path: Path, weights: str, problem: str
) -> None:
    (tmp_path / "folder.pt").mkdir()
    words = ["run", "gwpf-digits", "--out", "out", "--set", f"model.weights={weights}"]
    assert refused(fedctl(*words)) == f"model.weights: {problem}"
    assert not (tmp_path / "out").exists()


def test_ones_own_home(
    fedctl: Invoke, write_run: WriteRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a shell does not expand it: in --out=~/run, in `extends`."""
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    write_run("home/run")
    assert fedctl("report", "~/run").exit_code == 0
    told = refused(fedctl("run", "gwpf-digits", "--out=~/run"))
    assert told.startswith(f"--out {home}/run: exists and is not empty")
    (home / "mine.yaml").write_text("rounds: 7\n")
    (tmp_path / "other.yaml").write_text("extends: ~/mine.yaml\n")
    for source in ("~/mine.yaml", "other.yaml"):
        assert load(source)[0].rounds == 7


def test_a_name_that_begins_with_a_tilde(fedctl: Invoke, write_run: WriteRun) -> None:
    write_run("~run")
    assert fedctl("report", "./~run").exit_code == 0
    assert refused(fedctl("report", "~run")).startswith("Invalid value for 'RUN...': '~run' cannot")
