"""The benchmarks' harness: raw lines are written whole, tables follow from them."""

import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from bench import harness
from bench.__main__ import BENCHMARKS
from bench.harness import Benchmark, by_case, markdown, publish, read, recording, spread, stale

PRIVATE = ("/tmp", "/home", "/root", "://")


def table(rows: list[harness.Row]) -> str:
    return markdown(
        ["case", "x"], [[c, spread([v["x"] for v in vs])] for c, vs in by_case(rows).items()]
    )


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(harness, "README", tmp_path / "README.md")
    harness.README.write_text("before\n<!-- generated: toy -->\nold\n<!-- end: toy -->\nafter\n")
    return Benchmark("toy", table, lambda rows: Figure())


def test_from_measurement_to_readme(toy: Benchmark, tmp_path: Path) -> None:
    with recording(toy) as record:
        record("a", 1, {"x": 1.0}, {"threads": 1})
        record("a", 2, {"x": 2.0}, {"threads": 1})
        assert not toy.raw.exists()  # the old file stays until all is measured
    publish(toy)
    assert "| a | 1.500 ± 0.500 |" in harness.README.read_text()
    assert harness.README.read_text().startswith("before\n")
    assert harness.README.read_text().endswith("after\n")
    names = {"toy.jsonl", "toy.md", "toy.svg", "README.md"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert stale(toy) == []
    toy.raw.write_text(toy.raw.read_text().replace('"x": 2.0', '"x": 4.0'))
    assert {path.name for path in stale(toy)} == {"toy.md", "README.md"}


def test_a_row_says_where_it_comes_from(toy: Benchmark) -> None:
    with recording(toy) as record:
        record("a", 1, {"x": 1.0}, {})
    (row,) = read(toy)
    assert {"benchmark", "case", "seed", "values", "machine", "versions", "commit", "utc"} <= {*row}
    assert row["machine"]["cpu"] and row["versions"]["torch"]
    assert not [word for word in PRIVATE if word in json.dumps(row)]


def test_an_interrupted_measurement_leaves_the_old_results(toy: Benchmark) -> None:
    toy.raw.write_text("{}\n")
    with pytest.raises(KeyboardInterrupt), recording(toy) as record:
        record("a", 1, {"x": 1.0}, {})
        raise KeyboardInterrupt
    assert toy.raw.read_text() == "{}\n"


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda b: b.name)
def test_tables_are_what_the_raw_results_say(benchmark: Benchmark) -> None:
    assert stale(benchmark) == []
    assert {row["benchmark"] for row in read(benchmark)} == {benchmark.name}
    assert not [word for word in PRIVATE if word in benchmark.raw.read_text()]
