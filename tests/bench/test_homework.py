"""The homework's law, on digits, and what its tables accept."""

from dataclasses import replace

import pytest

from bench.homework import A1, A2, A3, WEIGHTS, Cell, equal, side_by_side
from tests.jobs import experiment_run

SCENARIOS = {  # A1's, on smaller data
    "IID": {"participation": 0.5, "optimizer": {"lr": 0.01}},
    "non-IID": {
        "participation": 0.2,
        "optimizer": {"lr": 0.1},
        "data": {"partition": {"name": "shards", "per_client": 2}},
    },
}


def federation(algorithm: str, epochs: int = 1, **scenario: object):
    """With dropout: both versions must draw the same masks. In double precision: see bounds.py."""
    tree = {
        "seed": 10,
        "clients": 20,
        "model": {"name": "dropout-cnn", "precision": "fp64"},
        "codec": {"name": "fp64"},
        "algorithm": {"name": algorithm},
        "schedule": {"batch_size": None, "phases": [{"epochs": epochs}]},
    }
    return experiment_run(tree | scenario)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_fedsgd_by_gradients_and_by_weights_are_equal_after_each_round(scenario):
    runs = [federation(name, **SCENARIOS[scenario]) for name in ("fedsgd", "fedavg")]
    start = runs[0].server.anchor.clone()
    rows = side_by_side(*runs, rounds=5)
    assert [row[0] for row in rows] == [1, 2, 3, 4, 5]
    assert all(map(equal, rows))
    sampled = round(SCENARIOS[scenario]["participation"] * 20)
    assert [row[3] for row in rows] == [2 * n * sampled for n in (1, 2, 3, 4, 5)]
    assert (runs[0].server.anchor - start).abs().max() > 10 * WEIGHTS  # equal though they moved


def test_a_second_epoch_makes_them_differ():
    scenario = SCENARIOS["non-IID"]
    rows = side_by_side(federation("fedsgd", **scenario), federation("fedavg", 2, **scenario), 2)
    assert not any(map(equal, rows))


def test_a_cell_is_met_by_its_messages_and_by_an_accuracy_within_the_band():
    fedsgd, fedavg, *_ = A2
    assert fedsgd.met(20, fedsgd.accuracy + 2.9) and not fedsgd.met(20, fedsgd.accuracy - 3.1)
    assert fedavg.met(20, fedavg.accuracy - 2.4) and not fedavg.met(20, fedavg.accuracy + 2.6)
    assert not fedavg.met(40, fedavg.accuracy)


def test_different_runs_have_different_names():
    cells = {*(expected.cell for expected in A2), *A3, *A1.values()}
    # A1's scenarios are told apart by their own names; of the others a name stands for one run
    named = {replace(cell, batch=100) for cell in cells}
    assert len({cell.name for cell in named}) == len(named)
    assert Cell("FedAvg").name == "FedAvg N=100 C=0.1 E=1 lr=0.01 IID"
