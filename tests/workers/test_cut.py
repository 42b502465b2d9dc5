"""Where a network is cut into stages."""

from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedctl import bundled
from trainer.config.errors import ConfigError
from trainer.config.load import load
from trainer.config.parallel import Parallel
from trainer.models.llama import Llama
from trainer.workers.cut import cut, evenly, seconds

NET = nn.Sequential(
    nn.Flatten(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2)
)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.data())
def test_no_other_cut_has_a_smaller_largest_part(costs, data):
    parts = data.draw(st.integers(1, len(costs)))
    starts = evenly(costs, parts)
    assert starts[0] == 0 and starts == sorted(set(starts))

    def largest(inner):
        return max(sum(costs[a:b]) for a, b in pairwise([0, *inner, len(costs)]))

    assert largest(starts[1:]) == min(map(largest, combinations(range(1, len(costs)), parts - 1)))


@pytest.mark.parametrize(
    "split,stages,edges",
    [
        ("parameters", 2, [0, 3, 6]),  # 72 parameters, 36 + 10
        ("layers", 3, [0, 3, 5, 6]),
        ("layers", 1, [0, 6]),
    ],
)
def test_stages_begin_with_a_layer_that_has_parameters(split, stages, edges):
    assert cut(NET, Parallel(pipeline=stages, split=split)) == edges


def test_measured_cost_decides():
    settings = Parallel(pipeline=2, split="cost")
    assert cut(NET, settings, [0, 1, 0, 1, 0, 9]) == [0, 5, 6]
    assert cut(NET, settings, [0, 9, 0, 1, 0, 1]) == [0, 3, 6]


def test_measuring_changes_neither_the_network_nor_the_random_numbers():
    net = nn.Sequential(nn.Embedding(5, 4), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Linear(4, 3))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    measured = seconds(net, torch.tensor([0, 1, 4]))
    assert torch.equal(torch.rand(3), expected)
    assert len(measured) == 4 and min(measured) > 0
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(parameter.grad is None for parameter in net.parameters())


def test_more_stages_than_layers():
    with pytest.raises(ConfigError, match="4 stages, but the model has 3 layers with parameters"):
        cut(NET, Parallel(pipeline=4))
    with pytest.raises(ConfigError, match="set it to at most 1"):
        cut(NET, Parallel(pipeline=2, schedule="interleaved"))


def test_stages_share_no_parameters():
    shared = nn.Linear(4, 4)
    with pytest.raises(ConfigError, match="share parameters"):
        cut(nn.Sequential(shared, nn.ReLU(), shared), Parallel(pipeline=2))


def test_layers_of_each_stage_as_given():
    assert cut(NET, Parallel(pipeline=2, layers=(4, 2))) == [0, 4, 6]
    for counts, told in [((4, 3), "are 7 layers, but the model has 6"), ((1, 5), "stage 0 would")]:
        with pytest.raises(ConfigError, match=told) as error:
            cut(NET, Parallel(pipeline=2, layers=counts))
        assert error.value.key == "parallel.layers"
    with pytest.raises(ValueError, match="3 numbers for 2 stages"):
        Parallel(pipeline=2, layers=(1, 2, 3))


def test_the_homeworks_stages_are_those_of_the_class():
    with torch.device("meta"):
        model = Llama()
    edges = cut(model, load("homework-b1", presets=bundled.PRESETS)[0].parallel)
    sizes = [sum(p.numel() for p in layer.parameters()) for layer in model]
    parameters = [sum(sizes[a:b]) for a, b in pairwise(edges)]
    assert parameters == [11_871_360, 2_655_360, 11_871_648]
