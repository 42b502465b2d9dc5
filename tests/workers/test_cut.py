"""Where a network is cut into stages."""

import weakref
from itertools import combinations, pairwise
from typing import ClassVar

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


class Watched(nn.Linear):
    """A layer that knows which copies of such layers exist while it computes."""

    copies: ClassVar[list[weakref.ref[nn.Module]]] = []
    found: ClassVar[list[tuple[int, torch.dtype]]] = []

    def forward(self, x):
        self.copies.append(weakref.ref(self))
        output = super().forward(x)
        alive = {id(layer) for copy in self.copies if (layer := copy()) is not None}
        self.found.append((len(alive), output.dtype))
        return output


def test_one_layer_at_a_time_is_measured_in_the_runs_precision():
    seconds(nn.Sequential(*(Watched(3, 3) for _ in range(4))), torch.ones(2, 3), bf16=True)
    assert Watched.found == [(1, torch.bfloat16)] * 8


def test_more_stages_than_layers():
    with pytest.raises(ConfigError, match="4 stages, but the model has 3 layers with parameters"):
        cut(NET, Parallel(pipeline=4))


@pytest.mark.parametrize(
    "pipeline,chunks,remedy",
    [
        (2, 4, "set parallel.schedule to gpipe or 1f1b, or"),
        (4, 2, "set parallel.schedule to gpipe or 1f1b, and this to at most 3, or"),
    ],
)
def test_more_stages_than_layers_when_interleaved(pipeline, chunks, remedy):
    with pytest.raises(ConfigError, match=remedy):
        cut(NET, Parallel(pipeline=pipeline, schedule="interleaved", chunks=chunks))
    deeper = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3 * pipeline)))
    with pytest.raises(ConfigError, match=r"set parallel\.chunks to at most 3, or"):
        cut(deeper, Parallel(pipeline=pipeline, schedule="interleaved", chunks=7))


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
