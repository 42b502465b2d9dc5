"""Options of the five works that change what a client does, each against its definition."""

import numpy as np
import pytest
import torch

from tests import bounds, jobs
from tests.ranks import ranks
from trainer.data.batches import noisy
from trainer.engine.round import run_round

BASE = {"seed": 2, "clients": 4, "schedule": {"batch_size": 16, "phases": [{"steps": 2}]}}
EXACTLY = BASE | bounds.DOUBLE


def played(tree, rounds=3, size=1):
    return ranks(size).run(jobs.history, tree, rounds)[0]


def anchors(tree):
    return [row["anchor"] for row in played(tree)]


# --- stragglers -----------------------------------------------------------------------------------


def test_unreachable_clients_are_drawn_anew_each_round_and_one_remains():
    tree = BASE | {"clients": 20, "stragglers": {"unreachable": 0.9}}
    clients = jobs.experiment_run(tree).clients
    rounds = [tuple(clients.sampled(number)) for number in range(1, 40)]
    assert {len(clients) for clients in rounds} == {2}
    assert len(set(rounds)) > 30
    alone = jobs.experiment_run(tree | {"clients": 4, "stragglers": {"unreachable": 0.99}})
    assert len(alone.clients.sampled(1)) == 1


def test_unreachable_clients_are_among_the_sampled_ones():
    tree = BASE | {"clients": 20, "participation": 0.5}
    some = jobs.experiment_run(tree | {"stragglers": {"unreachable": 0.4}}).clients
    all_of_them = jobs.experiment_run(tree).clients
    for number in range(1, 10):
        assert set(some.sampled(number)) < set(all_of_them.sampled(number))
        assert len(some.sampled(number)) == 6


def test_slow_clients_take_a_share_of_their_steps():
    slow = {"slow": 0.5, "least": 0.2}
    tree = BASE | {"schedule": {"batch_size": 16, "phases": [{"steps": 100}]}, "stragglers": slow}
    clients = jobs.experiment_run(tree).clients
    steps = [clients.steps(client, number) for client in range(4) for number in range(1, 101)]
    late = [count for count in steps if count < 100]
    assert all(20 <= count <= 100 for count in steps)
    assert 140 < len(late) < 260  # of 400, half
    assert 50 < np.mean(late) < 70  # uniform between 20 and 100
    assert len(set(late)) > 40


@pytest.mark.parametrize("algorithm", ["fedavg", "scaffold", "fedsgd"])
def test_stragglers_do_not_depend_on_the_number_of_ranks(algorithm):
    tree = EXACTLY | {
        "algorithm": {"name": algorithm},
        "stragglers": {"unreachable": 0.3, "slow": 0.6, "least": 0.1},
    }
    alone = played(tree)
    assert bounds.apart(alone, played(tree, size=2)) < bounds.of_runs(alone)


# --- learning rate, weight decay ------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["fedavg", "fedsgd"])
def test_a_decay_of_the_learning_rate_is_a_smaller_learning_rate(algorithm):
    tree = EXACTLY | {"algorithm": {"name": algorithm}}
    phases = [{"steps": 2, "lr_scale": 0.1}]
    scaled = played(tree | {"schedule": {"batch_size": 16, "phases": phases}})
    small = played(tree | {"optimizer": {"lr": 0.005}})
    assert bounds.apart(scaled, small) < bounds.of_runs(small)


@pytest.mark.parametrize("scale_beta,beta", [(True, 0.02), (False, 0.2)])
def test_fedga_scales_beta_with_the_learning_rate(scale_beta, beta):
    scaled = EXACTLY | {
        "algorithm": {"name": "fedga", "beta": 0.2, "scale_beta": scale_beta},
        "schedule": {"batch_size": 16, "phases": [{"steps": 2, "lr_scale": 0.1}]},
    }
    plain = EXACTLY | {"algorithm": {"name": "fedga", "beta": beta}, "optimizer": {"lr": 0.005}}
    small = played(plain)
    assert bounds.apart(played(scaled), small) < bounds.of_runs(small)


def test_warm_up_changes_the_steps_and_ends_where_the_constant_begins():
    warm = BASE | {"optimizer": {"lr": 0.1, "warmup_rounds": 2, "warmup_lr": 0.1}}
    assert np.array_equal(anchors(warm)[-1], anchors(BASE | {"optimizer": {"lr": 0.1}})[-1])
    rising = BASE | {"optimizer": {"lr": 0.1, "warmup_rounds": 2, "warmup_lr": 0.01}}
    assert not np.array_equal(anchors(warm)[1], anchors(rising)[1])


@pytest.mark.parametrize("algorithm", ["fedavg", "fedsgd"])
def test_weight_decay_can_spare_norms_and_biases(algorithm):
    """The same as torch's own groups; the model's vectors are its biases."""
    tree = EXACTLY | {
        "clients": 1,
        "algorithm": {"name": algorithm},
        "schedule": {"batch_size": 16, "phases": [{"steps": 1}]},
        "optimizer": {"lr": 0.1, "weight_decay": 0.5, "decay_norm_and_bias": False},
    }
    rank, fresh = jobs.experiment_run(tree), jobs.experiment_run(tree)
    for number in (1, 2):
        run_round(rank, number)
    worker, task = fresh.parts.worker, fresh.parts.task
    groups = [{"params": [], "weight_decay": 0.5}, {"params": [], "weight_decay": 0.0}]
    for parameter in worker.model.parameters():
        groups[parameter.dim() == 1]["params"].append(parameter)
    optimizer = torch.optim.SGD(groups, lr=0.1)
    places = (fresh.clients.sampler.places(0, k) for k in range(2))
    for x, y, _ in task.batches(places, None):
        worker.gradient(x, y)
        optimizer.step()
    # two rounds, in each of which a weight changes by a batch's sum and its decay, in one step
    largest = fresh.server.anchor.abs().max()
    rounding = bounds.of_sums(2 * (16 + 3), largest, bounds.FP64)
    assert (rank.server.anchor - worker.params).abs().max() < rounding
    assert (rank.server.anchor - fresh.server.anchor).abs().max() > 1e-3


# --- label noise ----------------------------------------------------------------------------------


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_noisy_labels_follow_the_mixed_distribution():
    y = torch.arange(10).repeat(20_000)
    drawn = noisy(y, 0.1, 10, draws(1))
    kept = (drawn == y).double().mean().item()
    assert kept == pytest.approx(0.9, abs=bounds.of_share(0.9, len(y)))
    counts = torch.zeros(10, 10).index_put_((y, drawn), torch.ones(len(y)), accumulate=True)
    others = counts[~torch.eye(10, dtype=torch.bool)] / 20_000
    assert (others - 0.1 / 9).abs().max() < bounds.of_share(0.1 / 9, 20_000)


def test_the_least_loss_under_label_noise_is_the_published_constant():
    """-sum q log q of the mixed distribution for p = 0.1 and ten classes (Gu et al. 2023)."""
    y = torch.zeros(4_000_000, dtype=torch.int64)  # six standard errors
    drawn = noisy(y, 0.1, 10, draws(2))
    q = torch.full((10,), 0.1 / 9, dtype=torch.float64)
    q[0] = 0.9
    apart = float(q[1].log() - q[0].log())  # two values, so the mean's error is of their share
    expected = pytest.approx(0.544805, abs=abs(apart) * bounds.of_share(0.9, len(y)))
    assert -q.log()[drawn].mean().item() == expected


def test_no_noise_changes_no_label_and_full_noise_all():
    y = torch.arange(10)
    assert torch.equal(noisy(y, 0.0, 10, draws(3)), y)
    assert not (noisy(y, 1.0, 10, draws(3)) == y).any()


def test_label_noise_is_drawn_anew_at_each_visit_and_on_any_number_of_ranks():
    tree = EXACTLY | {"data": {"label_noise": 0.5, "sampling": "fixed"}}
    alone, plain = played(tree), played(EXACTLY | {"data": {"sampling": "fixed"}})
    assert bounds.apart(alone, played(tree, size=2)) < bounds.of_runs(alone)
    assert not np.array_equal(alone[1]["anchor"], plain[1]["anchor"])


# --- passes ---------------------------------------------------------------------------------------


def labels(tree, rounds):
    """Of the samples that client 0 trains on, by round."""
    rank = jobs.experiment_run(tree)
    clients, seen = rank.clients, []
    for number in range(1, rounds + 1):
        cohort = clients.cohort(number, {})
        places = [clients.sampler.places(0, clients.taken[0] + k) for k in range(2)]
        seen.append([rank.parts.task.y[place].tolist() for place in places])
        clients.advance(cohort)
    return seen


def test_a_restarted_client_begins_a_new_pass_in_each_round():
    first, second = labels(BASE | {"data": {"restart": True, "sampling": "fixed"}}, 2)
    assert first == second
    assert first == labels(BASE | {"data": {"sampling": "fixed"}}, 2)[0]
    assert first != labels(BASE | {"data": {"sampling": "fixed"}}, 2)[1]


def test_what_is_held_out_is_never_trained_on():
    clients = jobs.experiment_run(BASE | {"data": {"holdout": 0.1}}).clients
    whole = jobs.experiment_run(BASE).clients
    assert clients.sizes == [size - int(size * 0.1) for size in whole.sizes]


def test_an_empty_batch_size_is_all_that_a_client_holds():
    schedule = {"batch_size": None, "phases": [{"epochs": 1}]}
    clients = jobs.experiment_run(BASE | {"schedule": schedule}).clients
    assert clients.steps(0, 1) == 1
    assert len(clients.sampler.places(0, 0)) == clients.sizes[0]


@pytest.mark.parametrize("sampling", ["reshuffle", "fixed", "replacement"])
def test_a_pass_over_shared_samples_is_a_clients_share_of_them(sampling):
    data = {"sampling": sampling, "partition": {"name": "shared"}}
    phases = [{"epochs": 1}]
    clients = jobs.experiment_run(
        BASE | {"data": data, "schedule": {"batch_size": 16, "phases": phases}}
    ).clients
    assert clients.sizes == [1437 // 4] * 4
    assert clients.steps(0, 1) in (359 // 16, 359 // 16 + 1)  # the tail is dropped, or a step more
    whole = jobs.experiment_run(
        BASE | {"data": data, "schedule": {"batch_size": None, "phases": phases}}
    ).clients
    assert (whole.steps(0, 1), len(whole.sampler.places(0, 0))) == (1, 359)
