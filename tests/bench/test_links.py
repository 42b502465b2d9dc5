"""The benchmark of links: what is made of its rows, and experiments that differ in format only."""

import pytest

from bench.links import CODECS, RANKS, RATES, SETTINGS, experiment, figure, methods, table
from bench.trial import PRESETS
from trainer.config.load import load


def row(method: str, mbit: int, seconds: list[float], curve: list[float]) -> dict:
    values = {
        "setting": "toy",
        "method": method,
        "mbit": mbit,
        "parameters": 1000,
        "seconds": seconds,
        "curve": list(enumerate(curve, start=1)),
        "wire_bytes": 2e6,
    }
    return {"case": f"toy, {method}, {mbit} Mbit/s", "seed": 1, "values": values}


ROWS = [
    row(method, mbit, [1.0, slower * 1000 / mbit, 1000.0], curve)
    for mbit in RATES
    for method, slower, curve in (
        ("dense", 4, [0.5, 0.8, 1.0, 1.0, 1.0]),
        ("int8", 3, [0.5, 0.7, 0.8, 0.96, 0.9]),
        ("low rank", 2, [0.1, 0.2, 0.3, 0.4, 0.5]),
    )
]


def test_time_to_the_target_is_rounds_times_the_seconds_of_one() -> None:
    lines = [line.strip("| ").split(" | ") for line in table(ROWS).splitlines()]
    assert lines[2] == [
        "toy, dense",
        "2.000",
        "100.00",
        "3",
        "400.000",
        "40.000",
        "4.000",
        "1200.0",
        "120.0",
        "12.0",
    ]
    assert lines[3][3:] == ["4", "300.000", "30.000", "3.000", "1200.0", "120.0", "12.0"]
    assert lines[4][3:] == ["none", "200.000", "20.000", "2.000", *["not reached"] * 3]
    assert "toy: 1,000 parameters, 5 rounds, target 95.0 %" in table(ROWS)


def test_the_figure_has_a_line_for_each_method_that_reaches_it() -> None:
    (axes,) = figure(ROWS).axes
    assert [line.get_label() for line in axes.lines] == ["dense", "int8"]
    assert [name for name, *_ in methods(ROWS)] == ["toy"]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.name)
def test_methods_differ_in_their_format_only(setting) -> None:
    trees = [
        load(experiment(setting, method, 1, 5, tested=False), presets=PRESETS)[0].model_dump()
        for method in CODECS
    ]
    assert len({tree.pop("codec")["name"] for tree in trees}) == len(CODECS)
    assert all(tree == trees[0] for tree in trees)
    assert trees[0]["algorithm"]["server"]["nesterov"] and trees[0]["ranks"] == RANKS
