"""The choice of a normalisation: who has one, what it changes, and the line for who has none."""

import typing

import pytest
import torch
from torch import nn

from tests import jobs
from trainer.config.errors import ConfigError
from trainer.config.learning import ModelName
from trainer.config.load import load
from trainer.config.models import MODELS
from trainer.models import norm

CIFAR = (3, 32, 32)
NAMES = typing.get_args(ModelName)
RESNETS = [name for name in NAMES if name.startswith("cifar-resnet")]
LAYERS = {"batch": nn.BatchNorm2d, "group": nn.GroupNorm}


def accepted(name, choice):
    data = {"name": "python-topics"} if MODELS[name].takes == "text" else {}
    try:
        load({"model": {"name": name, "norm": choice}, "data": data})
    except ConfigError:
        return False
    return True


def built(name, choice=None, groups=8):
    torch.manual_seed(0)
    return MODELS[name](classes=10, in_shape=CIFAR, **norm.chosen(choice, groups))


def test_only_two_families_leave_a_choice():
    expected = {(name, choice) for name in RESNETS for choice in ("batch", "group")}
    expected |= {("fedga-resnet", "none"), ("fedga-resnet", "batch")}
    choices = ("batch", "group", "none")
    assert {(n, c) for n in NAMES for c in choices if accepted(n, c)} == expected
    assert all(accepted(name, None) for name in NAMES)


@pytest.mark.parametrize("choice", ["batch", "group"])
def test_a_cifar_resnet_has_only_the_chosen_norm_and_its_activation(choice):
    layers = [type(layer) for layer in built("cifar-resnet20", choice).modules()]
    other = {"batch": "group", "group": "batch"}[choice]
    assert layers.count(LAYERS[choice]) == 19 and LAYERS[other] not in layers
    mine, others = (nn.ReLU, nn.SiLU) if choice == "batch" else (nn.SiLU, nn.ReLU)
    assert layers.count(mine) == 19 and others not in layers


def test_without_norm_a_network_has_no_buffers():
    plain, batch = built("fedga-resnet", "none"), built("fedga-resnet", "batch")
    assert not list(plain.buffers())
    convolutions = [
        [layer.weight for layer in model.modules() if isinstance(layer, nn.Conv2d)]
        for model in (plain, batch)
    ]
    assert len(convolutions[0]) == 20
    assert all(torch.equal(a, b) for a, b in zip(*convolutions, strict=True))


@pytest.mark.parametrize(("name", "first"), [("cifar-resnet20", "batch"), ("fedga-resnet", "none")])
def test_an_empty_choice_is_the_first(name, first):
    own, chosen = built(name).state_dict(), built(name, first).state_dict()
    assert own.keys() == chosen.keys()
    assert all(torch.equal(own[key], chosen[key]) for key in own)


@pytest.mark.parametrize("groups", [1, 2, 4, 8, 16])
def test_every_group_norm_has_the_groups_that_are_set(groups):
    load({"model": {"name": "cifar-resnet20", "norm": "group", "groups": groups}})
    model = built("cifar-resnet20", "group", groups)
    norms = [layer for layer in model.modules() if isinstance(layer, nn.GroupNorm)]
    assert len(norms) == 19 and {layer.num_groups for layer in norms} == {groups}


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (
            {"name": "lenet", "norm": "batch"},
            "model.norm: lenet has no choice of normalisation; leave model.norm empty",
        ),
        (
            {"name": "resnet18", "norm": "none"},
            "model.norm: resnet18 has no choice of normalisation; leave model.norm empty",
        ),
        (
            {"name": "fedga-resnet", "norm": "group"},
            "model.norm: fedga-resnet has no norm=group; set model.norm to none or batch",
        ),
        (
            {"name": "cifar-resnet56", "norm": "none"},
            "model.norm: cifar-resnet56 has no norm=none; set model.norm to batch or group",
        ),
        (
            {"name": "cifar-resnet56", "norm": "group", "groups": 3},
            "model.groups: 3 does not divide the 16 channels of the first layer; set model.groups "
            "to 1, 2, 4, 8 or 16",
        ),
        (
            {"weights": "model.onnx"},
            "model.weights: model.onnx has an unknown format; use a .safetensors, .pt or .pth file",
        ),
    ],
)
def test_a_choice_that_the_model_does_not_leave_is_one_line(model, line):
    with pytest.raises(ConfigError) as caught:
        load({"model": model})
    assert str(caught.value) == line


def test_groups_without_a_group_norm_are_no_mistake():
    """A preset's groups stay harmless where --set chooses another norm."""
    load({"model": {"name": "cifar-resnet20", "norm": "batch", "groups": 3}})


def test_a_run_has_the_chosen_norm():
    model = {"name": "cifar-resnet20", "norm": "group", "groups": 4}
    worker = jobs.experiment_run({"data": {"resize": 8}, "model": model}).parts.worker
    norms = [layer for layer in worker.model.modules() if isinstance(layer, nn.GroupNorm)]
    assert len(norms) == 19 and {layer.num_groups for layer in norms} == {4}
    assert worker.buffers.numel() == 0
