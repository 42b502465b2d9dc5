"""Training details: BatchNorm buffers, augmentation, sampling, memory, the saved model."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests import jobs
from tests.names import ALGORITHMS, CODECS, POLICIES
from tests.ranks import ranks
from trainer.algorithms.algorithm import Algorithm
from trainer.config.keys import settings
from trainer.config.models import MODELS
from trainer.config.parts import resolve
from trainer.engine.evaluate import load_agreed
from trainer.engine.loop import save_model
from trainer.engine.round import run_round
from trainer.exchange.policies.policy import Policy
from trainer.exchange.reductions.reduction import Reduction
from trainer.exchange.transforms.transform import Transform

BASE = {"seed": 2, "clients": 4, "schedule": {"batch_size": 16, "phases": [{"steps": 2}]}}


def norm_net(buffers: str) -> dict[str, object]:
    """A tree whose model has BatchNorm on tiny images: see jobs.normalised."""
    return BASE | {"model": {"buffers": buffers}}


def test_mean_buffers_are_the_same_on_all_ranks_and_their_bytes_count():
    first, other = ranks(2).run(jobs.normalised, norm_net("mean"), 3)
    assert np.array_equal(first["buffers"], other["buffers"])
    assert not np.array_equal(first["buffers"], first["initial_buffers"])
    assert first["payload"]["buffers"] == 3 * 4 * 4 * first["buffers"].size
    assert first["dense"] == 3 * 4 * 4 * (first["size"] + first["buffers"].size)


def test_local_buffers_stay_with_their_clients_and_cost_nothing():
    results = ranks(2).run(jobs.normalised, norm_net("local"), 3)
    for result in results:
        assert np.array_equal(result["buffers"], result["initial_buffers"])
        assert result["payload"]["buffers"] == 0
        kept = list(result["client_buffers"].values())
        assert len(kept) == 2 and not np.array_equal(*kept)
    assert results[0]["accuracy"] == results[1]["accuracy"]


def test_the_same_seed_gives_the_same_bits_and_another_seed_other_ones():
    augmented = BASE | {"data": {"augment": True}}
    a, b = (ranks(1).run(jobs.history, augmented, 3)[0] for _ in range(2))
    c = ranks(1).run(jobs.history, augmented | {"seed": 3}, 3)[0]
    assert np.array_equal(a[3]["anchor"], b[3]["anchor"])
    assert not np.array_equal(a[3]["anchor"], c[3]["anchor"])


@pytest.mark.parametrize("share,expected", [(1.0, 40), (0.1, 4), (0.001, 1)])
def test_participation_samples_that_share_anew_each_round(share, expected):
    tree = BASE | {"clients": 40, "participation": share}
    run = jobs.experiment_run(tree)
    sampled = [tuple(run.clients.sampled(number)) for number in range(1, 30)]
    assert {len(set(clients)) for clients in sampled} == {expected}
    if share < 1:
        assert len(set(sampled)) > 5
        assert len(set().union(*sampled)) > 3 * expected or expected == 1


def test_memory_is_flat_in_the_number_of_clients():
    """A thousand clients keep no model; of each it is only known how many steps it has taken."""
    tree = {"clients": 1000, "schedule": {"batch_size": 8, "phases": [{"steps": 1}]}}
    rank = jobs.experiment_run(tree)
    run_round(rank, 1)
    assert not dict(rank.store.mine())
    assert rank.clients.taken == [1] * 1000


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"restart": True},
        {"holdout": 0.3},
        {"sampling": "replacement"},
        {"partition": {"name": "shared"}},
        {"partition": {"name": "shared"}, "sampling": "replacement"},
    ],
    ids=str,
)
def test_samples_are_counted_as_they_are_drawn(data):
    """Counters are computed ahead of the round; the loss counts what has been trained on."""
    schedule = {"batch_size": 100, "phases": [{"steps": 7}]}
    rank = jobs.experiment_run(BASE | {"schedule": schedule, "data": data})
    for number in (1, 2, 3):
        run_round(rank, number)
    tally = rank.ledger.tally
    assert tally.samples == rank.ledger.rank_samples[0] == rank.loss.samples > 0
    assert tally.steps == 3 * 4 * 7


def test_the_saved_model_loads_into_the_plain_network(tmp_path):
    rank = jobs.experiment_run(BASE)
    run_round(rank, 1)
    load_agreed(rank)
    save_model(rank.parts.worker.tensors(), tmp_path / "model.safetensors")
    network = MODELS["digits-cnn"](classes=10, in_shape=(1, 8, 8))
    network.load_state_dict(load_file(tmp_path / "model.safetensors"))
    vector = torch.cat([p.detach().reshape(-1) for p in network.parameters()])
    assert torch.equal(vector, rank.server.anchor)


def test_the_schema_names_every_network_and_no_other():
    (names,) = (s.type for s in settings() if s.key == "model.name")
    assert set(names.split(" | ")) == set(MODELS)
    for network in MODELS.values():
        assert issubclass(resolve(network.path), torch.nn.Module)


@pytest.mark.parametrize(
    "section,name",
    [
        *(("algorithm", name) for name in ALGORITHMS),
        *(("sync", name) for name in POLICIES),
        *(("codec", name) for name in CODECS),
    ],
)
def test_every_name_of_the_schema_is_built(section, name):
    parts = jobs.experiment_run(BASE | {section: {"name": name}}).parts
    assert isinstance(parts.algorithm, Algorithm)
    assert isinstance(parts.policy, Policy) and isinstance(parts.reduction, Reduction)
    assert all(isinstance(transform, Transform) for transform in parts.chain)
