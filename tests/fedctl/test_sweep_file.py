"""A sweep file: the runs it stands for, their names, and how each mistake is said in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from fedctl import bundled
from fedctl.sweep import file
from fedctl.sweep.variants import Variant, variants
from trainer.config.errors import ConfigError
from trainer.config.load import load

Invoke = Callable[..., Result]


def runs_of(sets: tuple[str, ...] = (), **tree: Any) -> list[Variant]:
    return variants(file.Sweep.model_validate({"base": "fedavg-digits", **tree}), sets)


def names(**tree: Any) -> list[str]:
    return [variant.name for variant in runs_of(**tree)]


@pytest.mark.parametrize("name", bundled.sweeps())
def test_shipped_sweeps_are_valid_and_say_what_they_show(name: str) -> None:
    sweep = file.read(name)
    assert sweep.name == name and 20 < len(sweep.description) < 150
    assert len(variants(sweep, [])) > 1
    assert name not in bundled.presets()


def test_a_run_is_its_base_with_the_settings_laid_over_it() -> None:
    (run,) = runs_of(
        set={"rounds": 7, "schedule.phases.0.steps": 2},
        grid={"algorithm": [{"name": "fedga", "beta": 0.02}]},
        runs=[{"optimizer.lr": 1e-5}],
        seeds=[4],
        sets=("clients=5",),
    )
    words = ["rounds=7", "schedule.phases.0.steps=2", "algorithm={name: fedga, beta: 0.02}"]
    expected, _ = load(
        "fedavg-digits",
        sets=[*words, "optimizer.lr=0.00001", "seed=4", "clients=5"],
        presets=bundled.PRESETS,
    )
    assert run.experiment == expected and run.digest == expected.digest()


def test_the_grid_is_a_product_with_the_runs_and_the_seeds() -> None:
    found = runs_of(
        grid={"rounds": [1, 2], "clients": [3, 4]}, runs=[{}, {"optimizer.lr": 0.1}], seeds=2
    )
    assert len({run.digest for run in found}) == len(found) == 16
    assert {run.experiment.seed for run in found} == {1, 2}
    assert len({run.group for run in found}) == 8


def test_names_say_what_varies() -> None:
    kinds = [{"name": "fedavg"}, {"name": "fedga", "beta": 0.1}]
    assert names(grid={"algorithm": kinds}, seeds=[2], set={"rounds": 3}) == [
        "algorithm=fedavg",
        "algorithm=fedga",
    ]
    assert names(grid={"algorithm": kinds[1:], "optimizer.lr": [0.1, 1]}, seeds=[1, 2]) == [
        "lr=0.1,seed=1",
        "lr=0.1,seed=2",
        "lr=1,seed=1",
        "lr=1,seed=2",
    ]
    assert names(seeds=[1, 2]) == ["seed=1", "seed=2"]
    assert names(grid={"base": ["apf-digits", "gwpf-digits"]}) == ["apf-digits", "gwpf-digits"]
    assert names(set={"rounds": 3}) == ["fedavg-digits"]


def test_names_that_their_author_gave_stand_first() -> None:
    found = names(
        runs=[{"name": "slow start", "optimizer.lr": 0.01}, {"name": "usual"}],
        grid={"schedule.phases.0.steps": [1, 5]},
    )
    assert found == ["slow-start,steps=1", "slow-start,steps=5", "usual,steps=1", "usual,steps=5"]


def test_names_stay_apart_short_and_inside_their_folder() -> None:
    alike = runs_of(runs=[{"name": "../a b"}, {"name": "a-b", "rounds": 3}], seeds=2)
    assert len({run.name for run in alike}) == 4 and len({run.group for run in alike}) == 2
    assert all(run.name.startswith("a-b") for run in alike)
    (long, _) = runs_of(runs=[{"name": "x" * 300}, {"rounds": 3}])
    assert len(long.name) == 100 and long.name.endswith(long.digest[:6])


def test_a_kind_is_chosen_before_its_settings_whatever_their_order() -> None:
    found = runs_of(grid={"sync.threshold": [0.1, 0.2], "sync.name": ["apf", "gwpf"]})
    assert [(run.experiment.sync.name, run.experiment.sync.threshold) for run in found] == [
        ("apf", 0.1),
        ("gwpf", 0.1),
        ("apf", 0.2),
        ("gwpf", 0.2),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("grdi: {rounds: [1]}", "grdi: unknown key; did you mean grid?"),
        ("report: {colums: [run]}", "report.colums: unknown key; did you mean report.columns?"),
        ("optimizer.lr: 3", "optimizer.lr: unknown key; a sweep has name, description, base, "),
        ("grid: {rounds: 3}", "grid.rounds: write a list, rounds: [A, B]"),
        ("grid: {rounds: []}", "grid: rounds has no values"),
        ("seeds: 0", "seeds: a number of seeds starts at 1"),
        ("seeds: [-1, 2]", "seeds.0: input should be greater than or equal to 0"),
        ("report: {x: [loss]}", "report.x.0: input should be 'bytes', 'rounds' or 'time'"),
        (
            "report: {columns: [accurcy]}",
            "report.columns: accurcy: unknown; did you mean accuracy?",
        ),
        ("[1, 2]", "mine.yaml: a sweep is a mapping of keys to values"),
        ("a: [", "mine.yaml: line 1: not YAML"),
        ("base: fedavg-digit", "fedavg-digit: neither a preset nor a file; did you mean fedavg-"),
        ("set: {roundz: 3}", "roundz: unknown key; did you mean rounds?"),
        (
            "grid: {rounds: [3, 0]}",
            "rounds: 0: input should be greater than or equal to 1 (in run rounds=0)",
        ),
        ("{grid: {rounds: [1]}, runs: [{rounds: 2}]}", "runs.0.rounds: the grid has this key too"),
        ("grid: {sync: [{name: gwpf}, {name: [x]}]}", "sync.name: a list is not one of 'full', "),
        ("grid: {sync: [{name: gwpf}, {name: {a: 1}}]}", "sync.name: a map is not one of "),
        ("grid: {seed: [[1], [2]]}", "seed: a list: input should be a valid integer (in run "),
        ("grid: {base: [[x]]}", "grid.base.0: a list: write the name of a preset or a file"),
        ("runs: [{base: {a: 1}}]", "runs.0.base: a map: write the name of a preset or a file"),
        ("runs: [{name: [x]}]", "runs.0.name: a list: write a name"),
        ("seeds: []", "seeds: is empty; give it some values, or remove it"),
        ("grid: {}", "grid: is empty; give it some values, or remove it"),
        ("runs: []", "runs: is empty; give it some values, or remove it"),
        ("{base: mine.yaml, seeds: 2}", "mine.yaml: is a sweep, several runs, and not an exper"),
        (f"grid: {{? {'a.' * 3000}b : [1]}}", f"{'a.' * 40}...: is nested deeper than 30 levels"),
        ("{grid: {seed: [1]}, seeds: 2}", "seed: the sweep has seeds too; drop one of them"),
        (
            "runs: [{name: a}, {name: b}]",
            "a and b: two runs of the same settings (digest",
        ),
        ("seeds: [1, 1]", "experiment: two runs of the same settings (digest"),
        ("set: {data.path: no.npz}", "data.path: no.npz does not exist"),
        (
            "{set: {metrics.port: 9100}, seeds: 2}",
            "metrics.port: 9100 cannot serve 2 runs at a time; set it to 0, or use --jobs 1",
        ),
    ],
)
def test_mistakes_are_one_line(fedctl: Invoke, tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    result = fedctl("sweep", "mine.yaml", "--jobs", 2)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {problem}") and result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["sweep", "digits-freezin"], "digits-freezin: neither a sweep nor a file; did you mean "),
        (["sweep", "no.yaml"], "no.yaml: no such file"),
        (
            ["sweep", "gwpf-digits"],
            "gwpf-digits: is a preset, one run; start it with: fedctl run gwpf-digits",
        ),
        (["run", "digits-freezing"], "digits-freezing: is a sweep, several runs; start them with"),
        (
            ["sweep", "digits-freezing", "--set", "seed=3"],
            "seed: the sweep itself sets seed; edit its file",
        ),
        (["sweep", "digits-freezing", "--jobs", "0"], "Invalid value for '--jobs': 0 is not in "),
    ],
)
def test_wrong_commands_are_one_line(fedctl: Invoke, words: list[str], problem: str) -> None:
    result = fedctl(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {problem}") and result.stderr.count("\n") == 1


def test_a_dry_run_says_what_would_be_done_and_creates_nothing(
    fedctl: Invoke, tmp_path: Path
) -> None:
    tree = {"base": "fedavg-digits", "set": {"rounds": 2}, "grid": {"ranks": [1, 2]}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tree))
    text = fedctl("sweep", "mine.yaml", "--dry-run", "--jobs", 3).stdout
    assert text.startswith("2 runs in runs/mine; 2 at a time (") and ", 2 for each run" in text
    plan = json.loads(fedctl("sweep", "mine.yaml", "--dry-run", "-o", "json").stdout)
    assert [(run["run"], run["state"]) for run in plan["runs"]] == [
        ("ranks=1", "new"),
        ("ranks=2", "new"),
    ]
    for run in plan["runs"]:
        words = run["run"].split()
        experiment, _ = load("fedavg-digits", sets=["rounds=2", *words], presets=bundled.PRESETS)
        assert run["experiment"] == experiment.model_dump(mode="json")
        assert run["digest"] == experiment.digest() and run["digest"] in text
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_bases_are_relative_to_the_sweeps_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    for name, rounds in (("one", 1), ("two", 2), ("three", 3)):
        (tmp_path / f"a/{name}.yaml").write_text(f"extends: fedavg-digits\nrounds: {rounds}\n")
    (tmp_path / "a/base.yaml").write_text("base: one.yaml\nseeds: 2\n")
    (tmp_path / "a/grid.yaml").write_text("grid: {base: [one.yaml, ./two.yaml, apf-digits]}\n")
    (tmp_path / "a/runs.yaml").write_text("runs: [{base: two.yaml}, {base: three.yaml}]\n")
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "b")
    for name, rounds in (("base", [1, 1]), ("grid", [1, 2, 120]), ("runs", [2, 3])):
        found = variants(file.read(f"../a/{name}.yaml"), [])
        assert [run.experiment.rounds for run in found] == rounds


def test_a_setting_may_have_an_effect_in_some_runs_only() -> None:
    found = runs_of(set={"stragglers.least": 0.3}, grid={"stragglers.slow": [0, 0.5]})
    assert len(found) == 2
    with pytest.raises(ConfigError) as error:
        runs_of(set={"stragglers.least": 0.3}, grid={"rounds": [1, 2]})
    assert str(error.value) == (
        "stragglers.least: has no effect while stragglers.slow is 0.0; drop it, or set "
        "stragglers.slow=0.5 (in every run)"
    )


def test_the_number_of_runs_is_bounded_before_any_is_built() -> None:
    keys = ("rounds", "clients", "ranks", "seed", "schedule.batch_size", "optimizer.lr")
    with pytest.raises(ConfigError, match="grid: 1,000,000 runs; at most 10,000 are one sweep"):
        runs_of(grid={key: list(range(1, 11)) for key in keys})
    with pytest.raises(ValueError, match="1000000 is too many; at most 10,000, or list them"):
        runs_of(seeds=1_000_000)
