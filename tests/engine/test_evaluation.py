"""Evaluation: when it happens, what it costs, what it measures besides accuracy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from tests import bounds, jobs
from tests.ranks import ranks
from trainer.engine.clock import Clock
from trainer.engine.durations import LEAST, packed, unpacked
from trainer.engine.evaluate import estimate_buffers, evaluate, load_agreed
from trainer.engine.round import run_round
from trainer.engine.turns import full_gradient
from trainer.keys import Purpose, stream

BASE = {
    "seed": 2,
    "rounds": 6,
    "clients": 4,
    "data": {"partition": {"name": "shards"}},
    "schedule": {"batch_size": 16, "phases": [{"steps": 2}]},
}

EIGHTH = 0.00125  # how nearly right a duration is told


def life(tree, folder, size=2):
    return ranks(size).run(jobs.life, tree, str(folder))[0]


def test_a_run_can_be_tested_before_it_trains(tmp_path):
    rows = life(BASE | {"evaluation": {"at_start": True}}, tmp_path)
    assert [row["round"] for row in rows] == [*range(7), 6]
    first = rows[0]
    assert sum(first["payload_bytes_total"].values()) == first["local_steps_total"] == 0
    assert first["train_loss"] is None
    rank = jobs.experiment_run(BASE)
    untrained = evaluate(rank)
    assert first["test_accuracy_ratio"] == untrained.accuracy
    tests = len(rank.parts.task.y_test)
    rounding = bounds.of_sums(tests)  # on two ranks the losses add in another order
    assert first["test_loss"] == pytest.approx(untrained.loss, rel=rounding)


def test_a_run_ends_at_its_target(tmp_path):
    rows = life(BASE | {"rounds": 200, "evaluation": {"target": 0.5}}, tmp_path)
    *before, reached, final = rows
    assert final["final"] and reached["round"] == final["round"] < 200
    assert reached["test_accuracy_ratio"] > 0.5
    assert all(row["test_accuracy_ratio"] <= 0.5 for row in before)
    assert (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("algorithm,up_and_down", [("fedavg", 2), ("fedsgd", 2), ("fedga", 4)])
def test_messages_are_counted_up_and_down(algorithm, up_and_down, tmp_path):
    tree = BASE | {"algorithm": {"name": algorithm}, "participation": 0.5}
    last = life(tree, tmp_path)[-1]
    assert last["messages_total"] == up_and_down * 2 * 6


def test_a_clock_charges_a_clients_turns_and_phases_to_the_round(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("trainer.engine.clock.time.perf_counter", lambda: now[0])
    clock = Clock(torch.device("cpu"))
    clock.begin_round()
    with clock.turn(3):
        now[0] += 2.0
    with clock.turn(3):  # its full gradient, and then its training
        now[0] += 1.0
    with clock.turn(5):
        now[0] += 4.0
    with clock.phase("apply"):
        now[0] += 0.5
    with clock.phase("evaluate"):
        now[0] += 8.0
    assert clock.turns == {3: 3.0, 5: 4.0}
    assert clock.seconds["local"] == 7.0 and clock.training == 7.5
    assert clock.since_begin("apply") == clock.seconds["apply"] == 0.5
    clock.begin_round()
    assert not clock.turns and clock.since_begin("apply") == 0 < clock.seconds["apply"]


def test_federated_time_is_the_slowest_clients_of_all_ranks_and_idle_time_the_longest_ranks():
    """Of each round; turns: of each rank's clients."""
    rounds = [[([1.0, 3.0], 0.5), ([1.5], 0.5)], [([2.0], 0.0), ([1.0, 1.0, 2.0], 0.0)]]
    federated = (3.0 + 0.5) + 2.0
    idle = [0.0 + 2.0, 2.5 + 0.0]  # 4 seconds against 1.5, then 2 against 4
    for result in ranks(2).run(settled, rounds):
        assert result == (
            pytest.approx(federated, rel=EIGHTH),
            pytest.approx(idle, abs=6 * EIGHTH),
        )  # a difference of two


def settled(rounds):
    """On each rank: what the ledger makes of these times."""
    rank = jobs.experiment_run(BASE)
    for times in rounds:
        rank.ledger.time(*times[rank.parts.group.rank])
        rank.ledger.settle()
    return rank.ledger.federated, rank.ledger.idle


DURATIONS = st.tuples(st.floats(0, 5e4), st.floats(0, 5e4))


@given(st.lists(DURATIONS, min_size=1, max_size=9))
def test_durations_of_all_ranks_come_back_from_the_sums_of_their_numbers(times):
    """Each rank fills in its own; what is too short to be told counts as nothing."""
    own = [
        [pair if at == rank else (0.0, 0.0) for at, pair in enumerate(times)]
        for rank in range(len(times))
    ]
    sums = [sum(numbers) for numbers in zip(*map(packed, own), strict=True)]
    for told, found in zip(times, unpacked(sums, len(times)), strict=True):
        assert found == pytest.approx(told, rel=EIGHTH, abs=LEAST)


def test_federated_time_grows_with_each_round_and_is_less_than_one_after_the_other(tmp_path):
    rows = [row for row in life(BASE, tmp_path, size=1) if "final" not in row]
    times = [row["federated_time_seconds"] for row in rows]
    assert times == sorted(times) and times[0] > 0
    assert times[-1] < rows[-1]["time_seconds"]


# --- alignment ------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["fedavg", "fedga"])
def test_alignment_is_the_variance_of_the_clients_gradients(algorithm):
    tree = BASE | {"algorithm": {"name": algorithm}, "evaluation": {"alignment": True}}
    rank = jobs.experiment_run(tree)
    gradients = torch.stack([full_gradient(rank, client) for client in range(4)]).double()
    weights = torch.tensor(rank.clients.sizes, dtype=torch.float64)
    weights /= weights.sum()
    mean = weights @ gradients
    variance = float(weights @ (gradients - mean).square().sum(1))
    alignment = run_round(rank, 1).alignment
    rounding = bounds.of_sums(mean.numel())  # squares of all coordinates, in float32
    assert alignment.variance == pytest.approx(variance, rel=rounding)
    assert alignment.norm == pytest.approx(float(mean.norm()), rel=rounding)


def test_measuring_alignment_changes_nothing_but_the_bytes_of_evaluation(tmp_path):
    plain = life(BASE, tmp_path / "plain")
    measured = life(BASE | {"evaluation": {"alignment": True, "every": 3}}, tmp_path / "measured")
    assert [r["round"] for r in measured if "gradient_variance" in r] == [3, 6, 6]
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "measured"))
    assert all(torch.equal(a[key], b[key]) for key in a)
    payload = measured[-1]["payload_bytes_total"]
    gradients = 2 * 4 * 6090 * measured[-1]["clients_sampled"]  # each client's, in two rounds
    assert payload == plain[-1]["payload_bytes_total"] | {"evaluation": gradients}
    wire = measured[5]["wire_bytes_total"]["evaluation"]
    assert 0 < wire - 2 * 2 * 4 * 6090 < 2000  # two all-reduces of gradients, and some numbers


def test_clients_that_hold_the_same_are_aligned(tmp_path):
    tree = BASE | {
        "data": {"partition": {"name": "percentage-iid", "share": -1}},
        "evaluation": {"alignment": True},
    }
    row = life(tree, tmp_path)[0]
    assert row["gradient_deviation_ratio"] < bounds.of_sums(BASE["clients"] + 1)  # of the mean
    other = life(BASE | {"evaluation": {"alignment": True}}, tmp_path / "other")[0]
    assert other["gradient_deviation_ratio"] > 0.1


# --- BatchNorm statistics -------------------------------------------------------------------------


def test_statistics_are_estimated_as_the_mean_over_training_batches():
    rank = jobs.with_norm(BASE | {"evaluation": {"bn_batches": 7}})
    run_round(rank, 1)
    load_agreed(rank)
    estimate_buffers(rank)
    conv, norm = rank.parts.worker.model[:2]
    assert norm.momentum == 0.1
    task, draws = rank.parts.task, stream(BASE["seed"], Purpose.ESTIMATE, 0, 1)
    places = torch.randint(len(rank.clients.samples), (7, 16), generator=draws)
    batches = [conv(task.inputs(task.x[place])) for place in places]
    mean = torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0)
    variance = torch.stack([b.var((0, 2, 3)) for b in batches]).mean(0)
    additions = batches[0].numel() // len(mean) + len(batches)  # for one channel
    largest = max(b.detach().abs().max() for b in batches)
    assert (norm.running_mean - mean).abs().max() < bounds.of_sums(additions, largest)
    assert (norm.running_var - variance).abs().max() < bounds.of_sums(additions, largest**2)


def test_the_saved_model_has_the_estimated_statistics(tmp_path):
    results = {}
    for batches in (0, 20):
        tree = BASE | {"evaluation": {"bn_batches": batches}, "model": {"buffers": "local"}}
        folder = tmp_path / str(batches)
        rows = ranks(2).run(jobs.life, tree, str(folder), True)[0]
        results[batches] = rows[-1]["test_loss"], load_file(folder / "model.safetensors")
    (stored, a), (estimated, b) = results[0], results[20]
    assert torch.equal(a["0.weight"], b["0.weight"])  # it changes no training
    assert not torch.equal(a["1.running_mean"], b["1.running_mean"])
    assert torch.equal(a["1.num_batches_tracked"], b["1.num_batches_tracked"])
    assert stored != estimated


# --- double precision -----------------------------------------------------------------------------


def test_in_double_precision_ranks_agree_to_the_last_digits():
    tree = BASE | bounds.DOUBLE
    one, two = (ranks(n).run(jobs.history, tree, 4)[0] for n in (1, 2))
    assert one[-1]["anchor"].dtype == np.float64
    assert bounds.apart(one, two) < bounds.of_runs(one)
    assert two[-1]["payload"]["values"] == 2 * two[-1]["dense"]
