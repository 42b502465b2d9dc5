"""The reader of YAML and JSON: laws of every text, and the scalars that YAML 1.1 misreads."""

import re
import tempfile
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from tests import patience
from trainer.config.documents import MOST_BYTES, MOST_DEPTH, dump, parse, read
from trainer.config.errors import ConfigError

ROOT = Path(__file__).parent.parent.parent

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**25), 10**25),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.sampled_from(["010", "1:30", "2024-01-01", "1e-3", "yes", "null", "~", "<<", "0x1F", "="]),
)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
trees = st.recursive(scalars, lambda below: st.lists(below) | st.dictionaries(names, below))


def line_of(text: str, **options: bool) -> str:
    with pytest.raises(ConfigError) as error:
        parse(text, "key", **options)
    line = str(error.value)
    assert line.startswith("key: ") and "\n" not in line and len(line) < 200
    return line.removeprefix("key: ")


@given(trees)
@example(["0o", {"0o17": "0o 1"}])
def test_what_is_dumped_reads_back_equal(tree: object) -> None:
    again = parse(dump(tree), "key")
    assert again == tree and dump(again) == dump(tree)  # of the same types: 1 is not 1.0 nor True


@given(st.text() | st.text(st.sampled_from("&*!{}[]:-?<'\"\\|>%@#,\n 01aeE.~\ud800\x1b")))
def test_every_text_is_a_value_or_one_line(text: str) -> None:
    for is_json in (False, True):
        try:
            parse(text, "key", is_json=is_json)
        except ConfigError as error:
            assert "\n" not in error.problem


@given(st.binary(max_size=200))
def test_every_file_is_a_value_or_one_line(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder, "any.yaml")).write_bytes(content)
        try:
            read(path, "key")
        except ConfigError as error:
            assert "\n" not in error.problem


@given(st.text(st.sampled_from("0123456789.:_-+eExob"), min_size=1))
def test_a_number_is_one_for_every_reader(text: str) -> None:
    """No text is two different numbers, or text here and a number to a reader of YAML 1.1."""
    try:
        found, elsewhere = parse(text, "key"), yaml.safe_load(text)
    except (ConfigError, ValueError):
        return
    if isinstance(elsewhere, int | float):
        assert found == elsewhere


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1_000", 1000), ("-0.5", -0.5), (".5", 0.5), ("yes", True),
        ("off", False), ("~", None), ("", None), ("2024-01-01", "2024-01-01"),
        ("2020-13-45", "2020-13-45"),
        ("'010'", "010"), ('"\\ud83d\\ude00"', "😀"), ("{1: a, on: b, 2024-01-01: c}",
        {"1": "a", "on": "b", "2024-01-01": "c"}), ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
    ],
)  # fmt: skip
def test_scalars(text: str, value: object) -> None:
    assert parse(text, "key") == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3", "b.c is given twice (lines 3 and 5); remove one"),
        ("a: 010", "line 1: 010 is a number to some readers of YAML, and text to others; write a "),
        ("a: 1:30", "line 1: 1:30 is a number to some readers"),
        ("a: 0x1F", "line 1: 0x1F is a number to some readers"),
        ("a: &a [*a]", f"line 1: is nested deeper than {MOST_DEPTH} levels; flatten it"),
        ("[" * 9999, f"line 1: is nested deeper than {MOST_DEPTH} levels; flatten it"),
        ("a: !!python/object/apply:os.system [ls]", "line 1: tag:yaml.org,2002:python/object/"),
        ("<<: {a: 1}", "line 1: <<: merging is not supported; use `extends`, or repeat"),
        ("? [a]\n: b", "line 1: has a key that is a list or a section; write a name"),
        ('a: "b\\0c"', "line 1: has a NUL character, which no name and no path can have"),
        ('"\\ud800"', "line 1: has half of a surrogate pair, which is no character"),
        ("a: 1\nb: \x1b[2J", "line 2: not YAML: has the character 0x001b, which YAML does not"),
        ("9" * 5000, "line 1: has a number of 5000 digits; at most 30 are read"),
        ("a\n---\nb", "line 2: not YAML: but found another document"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, problem: str) -> None:
    assert line_of(text).startswith(problem)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": {"b": 1, "b": 2}}', "a.b is given twice; remove one of them"),
        ('{"a": NaN}', "has NaN, which is no number of JSON; write one that is finite"),
        ('{"a": -Infinity}', "has -Infinity, which is no number"),
        ('{"a": 1', "line 1: not JSON: expecting ',' delimiter"),
        ('"\\ud800"', "has half of a surrogate pair"),
        ("[" * 99999, f"is nested deeper than {MOST_DEPTH} levels"),
        ("[" * 40 + "]" * 40, f"is nested deeper than {MOST_DEPTH} levels"),
        ("9" * 5000, "has a number of 5000 digits"),
    ],
)
def test_what_is_refused_in_json(text: str, problem: str) -> None:
    assert line_of(text, is_json=True).startswith(problem)


def test_aliases_cost_what_they_stand_for() -> None:
    """A billion values in 578 bytes: refused at once, and not after hours."""
    laughs = "a: &a [l,l,l,l,l,l,l,l,l]\n" + "".join(
        f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    began = time.monotonic()
    assert line_of(laughs).endswith("has more than 50,000 values, aliases counted in full")
    assert time.monotonic() - began < patience.seconds(5)


def test_files_are_bounded_and_utf_8(tmp_path: Path) -> None:
    (tmp_path / "large.yaml").write_text("a: " + "x" * MOST_BYTES)
    (tmp_path / "latin.yaml").write_bytes("name: caf\xe9".encode("latin-1"))
    for name, problem in (
        ("large.yaml", "is larger than 1 MiB; is this the right file?"),
        ("latin.yaml", "cannot be read: not UTF-8 from byte 9 on; save it as UTF-8"),
        ("none.yaml", "cannot be read: "),
    ):
        with pytest.raises(ConfigError, match=re.escape(problem)):
            read(tmp_path / name)
    (tmp_path / "marked.yaml").write_bytes(b"\xef\xbb\xbfname: a")
    assert read(tmp_path / "marked.yaml") == {"name": "a"}


def test_nobody_else_reads_what_people_write() -> None:
    """PyYAML's own readers are for text that Helm has rendered, by the rules that Helm has."""
    found = {
        path.relative_to(ROOT).as_posix()
        for package in ("fedctl", "trainer")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"yaml\.(safe_|full_|unsafe_)?load", path.read_text("utf-8"))
    }
    assert found == {
        "fedctl/chart/lint.py",
        "fedctl/cluster/change/submit.py",
        "fedctl/cluster/doctor/operators.py",
        "fedctl/commands/manifests.py",
    }
