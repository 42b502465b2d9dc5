"""`fedctl run --resume --set`: what is refused here is what the trainer would refuse."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedctl.errors import UserError
from fedctl.local import preflight
from fedctl.local.preflight import _refuse_changes
from fedctl.report import runs
from tests.engine.test_changes import FIT, SMALL, UNFIT
from tests.fedctl.checkpoints import write_checkpoint
from trainer.config.errors import ConfigError
from trainer.config.load import load
from trainer.engine.mirror import Mirror


def loaded(*trees: dict[str, Any]) -> Any:
    tree = SMALL
    for more in trees:
        tree = tree | more
    return load(tree)[0]


@pytest.mark.parametrize("before,after,key", UNFIT)
def test_what_no_run_resumes_with_is_refused_whatever_is_allowed(
    before: dict[str, Any], after: dict[str, Any], key: str
) -> None:
    was, now = loaded(before), loaded(before, after)
    for allowed in ([], list(was.differences(now)), [key]):
        with pytest.raises(ConfigError) as told:
            _refuse_changes(was, now, allowed)
        assert str(told.value).startswith(f"{key}: is ")
        assert "in this run; the saved state does not fit " in str(told.value)
        assert "--allow-changed" not in str(told.value)


@pytest.mark.parametrize("before,after", FIT)
def test_other_changes_are_allowed_by_their_keys(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    was, now = loaded(before), loaded(before, after)
    changed = list(was.differences(now))
    with pytest.raises(ConfigError, match=f"--allow-changed {changed[0]}$"):
        _refuse_changes(was, now, [])
    _refuse_changes(was, now, changed)


def test_data_stands_for_other_samples_alone() -> None:
    was = loaded({"data": {"partition": {"name": "dirichlet", "alpha": 0.5}}})
    now = loaded({"data": {"partition": {"name": "dirichlet", "alpha": 5.0}}})
    with pytest.raises(ConfigError, match=r"--allow-changed data\.partition\.alpha$"):
        _refuse_changes(was, now, ["data"])
    _refuse_changes(was, now, ["data.partition"])


@pytest.mark.parametrize(
    "name",
    [
        ".lock",
        "experiment.json",
        "metrics.jsonl",
        "model.safetensors",
        "logs/output.log",
        "logs/rank-0.json",
        "logs/rank-0.log",
    ],
)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_named_and_not_waited_for(
    write_run: Callable[..., Path], make: Callable[[Path], None], name: str
) -> None:
    run = write_run("a")
    write_checkpoint(run, 10)
    (run / name).unlink(missing_ok=True)
    make(run / name)
    with pytest.raises(UserError, match=f"{name}(: | )is a (pipe|folder)"):
        runs.read(run)
    with pytest.raises(UserError, match=f"{name} is a (pipe|folder)|has no experiment.json"):
        preflight.resumed(run, ["rounds=11"])


def test_the_newest_checkpoint_tells_what_is_another_experiment(
    write_run: Callable[..., Path],
) -> None:
    run = write_run("a")
    write_checkpoint(run, 10)
    path, more = run / "experiment.json", ["rounds=11"]
    path.write_text(path.read_text().replace('"lr":0.05', '"lr":0.5'))
    with pytest.raises(ConfigError, match=r"^optimizer.lr: is 0.05 in this run; 0.5 would "):
        preflight.resumed(run, more)
    assert preflight.resumed(run, [*more, "optimizer.lr=0.05"]).experiment.optimizer.lr == 0.05
    preflight.resumed(run, more, ["optimizer.lr"])


def test_what_changed_is_told_wherever_a_run_is_shown(
    fedctl: Callable[..., Any], write_run: Callable[..., Path]
) -> None:
    line = {"after_round": 4, "changed": {"optimizer.lr": [0.5, 0.05]}}
    later = {"after_round": 10, "changed": {"seed": [1, 2]}}
    text = f"{json.dumps(line)}\nnonsense\n{json.dumps(later)}\n"
    (write_run("a") / "changes.jsonl").write_text(text)
    write_run("b", "gwpf-digits")
    result = fedctl("report", "a", "b", "--out", "both")
    said = "run fedavg-digits: from round 5 optimizer.lr 0.5 -> 0.05\n"
    assert result.exit_code == 0 and said in result.stdout and "seed" not in result.stdout
    assert said in Path("both/table.md").read_text()
    assert said.strip().replace(">", "&gt;") in Path("both/report.html").read_text()
    told = json.loads(fedctl("report", "a", "b", "--out", "both", "-o", "json").stdout)
    assert told["runs"][0]["changes"] == [said.strip()] and "changes" not in told["runs"][1]


def test_what_a_run_resumed_with_is_kept_with_the_rounds_it_was_true_of(tmp_path: Path) -> None:
    mirror, path = Mirror(tmp_path, 0), tmp_path / "changes.jsonl"

    def kept() -> list[Any]:
        return [json.loads(line)["after_round"] for line in path.read_text().splitlines()]

    mirror.resumes(3, {})
    assert not path.exists()
    mirror.resumes(4, {"optimizer.lr": (0.1, 0.2)})
    mirror.resumes(6, {"optimizer.lr": (0.2, 0.3)})
    assert kept() == [4, 6]
    with path.open("a") as file:
        file.write("nonsense\n")
    mirror.resumes(6, {})
    assert kept() == [4]
    mirror.resumes(0, {})
    assert kept() == []


@pytest.mark.parametrize("name", [".lock", "logs/rank-0.log", "logs/output.log"])
def test_a_file_that_this_user_cannot_write_is_named(
    write_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run = write_run("a")
    write_checkpoint(run, 10)
    (run / name).touch()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, how: path != run / name and real(path, how))
    with pytest.raises(UserError, match=f"{name} cannot be written by this user; change"):
        preflight.resumed(run, ["rounds=11"])


@pytest.mark.parametrize("option", ["--out", "--resume"])
def test_a_folder_whose_name_is_not_utf_8_is_refused(
    fedctl: Callable[..., Any], tmp_path: Path, option: str
) -> None:
    source = ["gwpf-digits"] if option == "--out" else []
    result = fedctl("run", *source, option, os.fsdecode(b"a\xff"))
    assert result.exit_code == 2 and list(tmp_path.iterdir()) == []
    assert result.stderr.startswith(f"error: {option} ")
    assert result.stderr.endswith("is not a name in UTF-8; use another folder\n")
