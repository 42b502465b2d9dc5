"""list, show, explain, validate, schema: what they print, and how they say no."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import Result

from fedctl import bundled
from trainer.config.load import load

Invoke = Callable[..., Result]


def refused(result: Result) -> str:
    """The one line of a command that ended with 2."""
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    return result.stderr.removeprefix("error: ").strip()


@pytest.mark.parametrize("name", bundled.presets())
def test_presets_are_valid_and_say_what_they_show(name: str) -> None:
    experiment, _ = load(name, presets=bundled.PRESETS)
    assert experiment.name == name
    assert 20 < len(experiment.description) < 150


def test_list_names_every_preset_and_sweep(fedctl: Invoke) -> None:
    text, listed = fedctl("presets"), json.loads(fedctl("presets", "-o", "json").stdout)
    found = {
        kind: [entry["name"] for entry in listed if entry["kind"] == kind]
        for kind in ("preset", "sweep")
    }
    assert found == {
        "preset": bundled.presets(),
        "sweep": bundled.sweeps(),
    }
    above, _, below = text.stdout.partition("sweeps, for fedctl sweep:")
    assert all(name in above for name in bundled.presets())
    assert all(name in below for name in bundled.sweeps())
    assert max(map(len, text.stdout.splitlines())) <= 100


def test_show_prints_what_can_be_loaded_again(fedctl: Invoke, tmp_path: Path) -> None:
    for words in (["gwpf-digits"], ["gwpf-digits", "--why"]):
        result = fedctl("show", *words)
        (tmp_path / "shown.yaml").write_text(result.stdout)
        shown, _ = load(tmp_path / "shown.yaml")
        assert shown == load("gwpf-digits", presets=bundled.PRESETS)[0]


def test_show_as_json_is_the_same(fedctl: Invoke) -> None:
    text = fedctl("show", "apf-digits", "--set", "rounds=7").stdout
    assert json.loads(fedctl("show", "apf-digits", "--set", "rounds=7", "-o", "json").stdout) == (
        yaml.safe_load(text)
    )


def test_show_says_why(fedctl: Invoke) -> None:
    lines = fedctl("show", "gwpf-digits", "--set", "sync.quorum=0.7", "--why").stdout.splitlines()
    where = lines.index(f"{'  quorum: 0.7':<40}  # --set")
    assert lines[where - 1].startswith("  # share of the round's clients whose votes thaw")
    assert f"{'clients: 10':<40}  # preset fedavg-digits" in lines
    assert f"{'ranks: 1':<40}  # default" in lines


def test_show_says_why_as_json(fedctl: Invoke) -> None:
    reasons = json.loads(fedctl("show", "gwpf-digits", "--why", "-o", "json").stdout)
    assert reasons["clients"] == {
        "value": 10,
        "origin": "preset fedavg-digits",
        "help": "N, clients in the federation [clients]",
    }


def test_explain_a_setting(fedctl: Invoke) -> None:
    assert fedctl("explain", "rounds").stdout == (
        "rounds: int, 1 to 1000000000, default 60\n"
        "    rounds of the run; each ends in a synchronisation [rounds]\n"
    )


def test_explain_what_differs_between_choices(fedctl: Invoke) -> None:
    lines = fedctl("explain", "sync.threshold").stdout.splitlines()
    assert lines[0] == (
        "sync.threshold: number, 0 to 1, default 0.05  (with sync.name=apf or sync.name=gwpf)"
    )
    assert lines[2] == (
        "sync.threshold: number, 0 to 1, default 0.5  (with sync.name=gwpf-released)"
    )


def test_explain_the_name_that_chooses(fedctl: Invoke) -> None:
    assert fedctl("explain", "sync.name").stdout.splitlines()[0] == (
        "sync.name: full | apf | gwpf | gwpf-released | streaming | gaia | cmfl, default full"
    )


def test_explain_an_item_of_a_list(fedctl: Invoke) -> None:
    assert fedctl("explain", "schedule.phases.1.steps").stdout.startswith("schedule.phases.0.steps")


def test_explain_everything(fedctl: Invoke) -> None:
    entries = json.loads(fedctl("explain", "-o", "json").stdout)
    assert len(entries) > 40 and all(
        entry["help"] for entry in entries if not entry["key"].endswith(".name")
    )


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("shedule", "shedule: unknown key; did you mean schedule?"),
        ("sync.treshold", "sync.treshold: unknown key; did you mean sync.threshold?"),
        ("xyzzy", "xyzzy: unknown key; `fedctl explain` lists all keys"),
    ],
)
def test_explain_suggests(fedctl: Invoke, key: str, problem: str) -> None:
    assert refused(fedctl("explain", key)) == problem


def test_validate(fedctl: Invoke, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: fedavg-digits\nname: mine\nranks: 3\n")
    digest = load(tmp_path / "mine.yaml", presets=bundled.PRESETS)[0].digest()
    assert fedctl("validate", "mine.yaml").stdout == (
        f"mine.yaml: valid; 120 rounds, 10 clients, ranks 3, digest {digest}\n"
    )
    assert json.loads(fedctl("validate", "mine.yaml", "-o", "json").stdout) == {
        "valid": True,
        "name": "mine",
        "digest": digest,
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("roundz: 3", "roundz: unknown key; did you mean rounds?"),
        ("rounds: 0", "rounds: 0: input should be greater than or equal to 1"),
        ("ranks: 11", "ranks: 11 is more than clients (10), and every rank needs a client; set "),
        ("[1, 2]", "mine.yaml: an experiment is a mapping of keys to values"),
        ("a: [", "mine.yaml: line 1: not YAML"),
        (
            "extends: fedavg-digit",
            "mine.yaml: extends: fedavg-digit: neither a preset nor a file; did you mean fedavg-",
        ),
        ('extends: ""', "mine.yaml: extends: '': write the name of a preset or a file"),
        (f"extends: {'a' * 5000}", f"mine.yaml: extends: {'a' * 80}...: neither a preset nor "),
        ("extend: gwpf-digits", "extend: unknown key; did you mean extends?"),
        ("base: gwpf-digits", "mine.yaml: is a sweep, several runs, and not an experiment"),
        ("{rounds.x: 1, rounds: 3}", "mine.yaml: rounds is given twice; remove one of them"),
        ("{rounds: 3, rounds.x: 1}", "mine.yaml: rounds is given twice; remove one of them"),
        ('"": 3', "'': has an empty name; write names with dots between them"),
        ('"rounds.": 3', "'rounds.': has an empty name; write names with dots between them"),
        (f"? {'a.' * 3000}b\n: 3", f"{'a.' * 40}...: is nested deeper than 30 levels; flatten it"),
        (f"{'a' * 300}: 3", f"{'a' * 80}...: unknown key"),
        ("checkpoint.at_end: 1", "checkpoint.at_end: 1: write true or false"),
        ("checkpoint.at_end: t", "checkpoint.at_end: 't': write true or false"),
        ('checkpoint.at_end: "yes"', "checkpoint.at_end: 'yes': write true or false"),
    ],
)
def test_validate_says_what_is_wrong(
    fedctl: Invoke, tmp_path: Path, text: str, problem: str
) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    assert refused(fedctl("validate", "mine.yaml")).startswith(problem)


def test_schema_is_json(fedctl: Invoke) -> None:
    assert json.loads(fedctl("schema").stdout)["title"] == "Experiment"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["rum"], "rum: no such command; did you mean run?"),
        (["xyzzy"], "xyzzy: no such command; `fedctl --help` lists the commands"),
        (["show"], "Missing argument 'PRESET|FILE'; see fedctl show --help"),
        (
            ["run", "gwpf-text", "--rounds", "3"],
            "No such option '--rounds'; rounds is a setting: --set rounds=VALUE",
        ),
        (
            ["lint", "gwpf-text", "--data.path=x"],
            "No such option '--data.path'; data.path is a setting: --set data.path=VALUE",
        ),
        (["status", "x", "--rounds", "3"], "No such option '--rounds'; see fedctl status --help"),
        (["presets", "-o", "xml"], "Invalid value for '-o' / '--output': 'xml' is not one of "),
        (["show", "nothing.yaml"], "nothing.yaml: no such file"),
        (
            ["show", "gwpf-digit"],
            "gwpf-digit: neither a preset nor a file; did you mean gwpf-digits?",
        ),
        (["show", "x" * 5000], f"{'x' * 80}...: neither a preset nor a file; `fedctl presets` l"),
        (["show", "http://u:secret@h/x.yaml"], "http://***@h/x.yaml: is a URL; download the file"),
        (["sweep", "http://u:secret@h/x.yaml"], "http://***@h/x.yaml: is a URL; download the file"),
        (["show", "/"], "/: is a folder; name a regular file"),
        (["sweep", "/"], "/: is a folder; name a regular file"),
        (["show", "/dev/null"], "/dev/null: is a device; name a regular file"),
        (["show", "-"], "-: is standard input; name a regular file"),
        (["values", "gwpf-digits", "--values", "/dev/zero"], "--values /dev/zero: is a device; na"),
        (["show", "gwpf-digits", "--set", ".rounds=3"], "'.rounds': has an empty name; write "),
        (["show", "gwpf-digits", "--set", "r\udcffs=3"], "r\\udcffs: unknown key; it is not UTF-8"),
        (["show", "gwpf-digits", "--set", "a." * 1000 + "b=3"], "a." * 40 + "...: is nested deep"),
        (
            ["report", "a", "--mark", "x"],
            "Invalid value for '--mark': 'x' is not a valid number; s",
        ),
        (["sweep", "a", "--jobs", "x"], "Invalid value for '--jobs': 'x' is not a valid whole num"),
        (["logs", "a", "--tail", "x"], "Invalid value for '--tail': 'x' is not a valid whole num"),
        (["--bogus"], "No such option '--bogus'; see fedctl --help"),
        (["show", "--bogus"], "No such option '--bogus'; see fedctl show --help"),
        (["show", "gwpf-digits", "--set", "rounds"], "rounds: write --set KEY=VALUE, such as "),
    ],
)
def test_wrong_commands_are_one_line(fedctl: Invoke, words: list[str], problem: str) -> None:
    assert refused(fedctl(*words)).startswith(problem)
