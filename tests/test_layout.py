"""The flat vectors are the model: same values, same gradients, same step, on the model's device."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trainer.layout import Flat, Layout


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4)
    )


def test_a_step_on_the_vector_is_a_step_on_the_parameters():
    plain = network()
    flat = Flat(copy.deepcopy(plain))
    x, y = torch.randn(5, 1, 8, 8), torch.randint(0, 4, (5,))
    plain_sgd = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    vector = nn.Parameter(flat.params)
    vector.grad = flat.grads
    flat_sgd = torch.optim.SGD([vector], lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(3):
        plain_sgd.zero_grad()
        flat.grads.zero_()
        nn.functional.cross_entropy(plain(x), y).backward()
        nn.functional.cross_entropy(flat.model(x), y).backward()
        joined = torch.cat([p.grad.reshape(-1) for p in plain.parameters()])
        assert torch.equal(flat.grads, joined)
        plain_sgd.step()
        flat_sgd.step()
    assert torch.equal(flat.params, torch.cat([p.reshape(-1) for p in plain.parameters()]))
    statistics = [plain[1].running_mean, plain[1].running_var]
    assert torch.equal(flat.buffers, torch.cat(statistics))


def test_the_vectors_are_views_of_the_module_and_not_copies():
    flat = Flat(network())
    flat.params.fill_(2.0)
    flat.buffers.fill_(3.0)
    assert all(bool((p == 2).all()) for p in flat.model.parameters())
    assert bool((flat.model[1].running_mean == 3).all())
    assert flat.model[1].num_batches_tracked == 0, "integers are no part of the vector"
    assert flat.counters == [flat.model[1].num_batches_tracked]


@pytest.mark.parametrize("model", [network, lambda: nn.Linear(3, 2)], ids=["norm", "no buffers"])
def test_every_vector_lives_where_the_model_does(model):
    flat = Flat(model().to("meta"))
    assert {v.device.type for v in (flat.params, flat.grads, flat.buffers)} == {"meta"}


# --- layout ---------------------------------------------------------------------------------------

SHAPES = st.lists(st.lists(st.integers(1, 4), min_size=0, max_size=3), min_size=1, max_size=8)


def layout_of(shapes: list[list[int]]) -> Layout:
    return Layout((f"p{at}", shape) for at, shape in enumerate(shapes))


def test_the_layout_of_a_model_is_that_of_its_named_parameters():
    flat = Flat(network())
    named = [(name, tuple(p.shape)) for name, p in flat.model.named_parameters()]
    assert [(piece.name, piece.shape) for piece in flat.layout.pieces] == named
    assert flat.layout.size == len(flat.params) == sum(p.numel() for p in flat.model.parameters())


@given(SHAPES)
def test_pieces_lie_one_after_the_other_without_a_gap(shapes):
    layout = layout_of(shapes)
    places = [place for p in layout.pieces for place in range(p.place.start, p.place.stop)]
    assert places == list(range(layout.size))


@given(SHAPES, st.integers(0, 3))
def test_views_share_the_vectors_memory_also_of_a_stack_of_them(shapes, rows):
    layout = layout_of(shapes)
    vector = torch.zeros(rows, layout.size) if rows else torch.zeros(layout.size)
    for number, (name, view) in enumerate(layout.views(vector).items()):
        assert view.shape == (*vector.shape[:-1], *shapes[int(name[1:])])
        view.fill_(number + 1)
    expected = torch.cat([torch.full((p.size,), i + 1.0) for i, p in enumerate(layout.pieces)])
    assert torch.equal(vector, expected.expand_as(vector))
