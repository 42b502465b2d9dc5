"""The flat vectors are the model: same values, same gradients, same step, on the model's device."""

import copy

import pytest
import torch
from torch import nn

from trainer.flat import Flat


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
    flat_sgd = torch.optim.SGD([flat.values], lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(3):
        plain_sgd.zero_grad()
        flat.grads.zero_()
        nn.functional.cross_entropy(plain(x), y).backward()
        nn.functional.cross_entropy(flat.model(x), y).backward()
        joined = torch.cat([p.grad.reshape(-1) for p in plain.parameters()])
        assert torch.equal(flat.grads, joined)
        plain_sgd.step()
        flat_sgd.step()
    assert torch.equal(flat.values, torch.cat([p.reshape(-1) for p in plain.parameters()]))
    statistics = [plain[1].running_mean, plain[1].running_var]
    assert torch.equal(flat.buffers, torch.cat(statistics))


def test_the_vectors_are_views_of_the_module_and_not_copies():
    flat = Flat(network())
    flat.values.data.fill_(2.0)
    flat.buffers.fill_(3.0)
    assert all(bool((p == 2).all()) for p in flat.model.parameters())
    assert bool((flat.model[1].running_mean == 3).all())
    assert flat.model[1].num_batches_tracked == 0, "integers are no part of the vector"


@pytest.mark.parametrize("model", [network, lambda: nn.Linear(3, 2)], ids=["norm", "no buffers"])
def test_every_vector_lives_where_the_model_does(model):
    flat = Flat(model().to("meta"))
    assert {v.device.type for v in (flat.values, flat.grads, flat.buffers)} == {"meta"}
