"""Every preset: its model takes its data, and its clients hold enough; without weights or data."""

from functools import cache

import numpy as np
import pytest
import torch

from fedctl import bundled
from trainer.config.data import TEXT, Data
from trainer.config.fit import ineffective
from trainer.config.load import load
from trainer.config.models import MODELS
from trainer.config.schema import Experiment
from trainer.data.load import CUSTOMS, IMAGENET_MEAN, IMAGENET_SIDE
from trainer.data.partition import partition
from trainer.models import norm
from trainer.tasks.tokens import Tokens

SIDES = {"digits": 8, "cifar10": 32, "cifar100": 32, "imagenet": IMAGENET_SIDE}  # others: 28
CLASSES = {"imagenet": 1000}
TRAINING = {"digits": 1_437, "emnist": 112_800, "emnist-digits": 240_000} | {
    "cifar10": 50_000,
    "cifar100": 50_000,
    "imagenet": 1_281_167,
}  # others: 60,000


@cache
def preset(name: str) -> Experiment:
    return load(name, presets=bundled.PRESETS)[0]


OF_TEXT = [name for name in bundled.presets() if preset(name).data.kind == TEXT]
OF_IMAGES = [name for name in bundled.presets() if name not in OF_TEXT]


def classes_and_shape(data: Data) -> tuple[int, tuple[int, int, int]]:
    custom = CUSTOMS.get(data.name)
    side = data.resize or SIDES.get(data.name, 28)
    channels = len(custom.mean if custom else IMAGENET_MEAN)
    return custom.classes if custom else CLASSES[data.name], (channels, side, side)


@pytest.mark.parametrize("name", OF_TEXT)
def test_the_model_takes_text(name: str) -> None:
    experiment = preset(name)
    with torch.device("meta"):
        model = MODELS[experiment.model.name](vocabulary=50)
        tokens = torch.empty(2, experiment.data.context, dtype=torch.int64)
        assert model(tokens).shape == (2, experiment.data.context, 50)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_the_model_takes_the_data(name: str) -> None:
    experiment = preset(name)
    classes, shape = classes_and_shape(experiment.data)
    chosen = experiment.model
    with torch.device("meta"):
        model = MODELS[chosen.name](
            classes=classes, in_shape=shape, **norm.chosen(chosen.norm, chosen.groups)
        )
        assert model(torch.empty(2, *shape)).shape == (2, classes)


@pytest.mark.parametrize("name", [n for n in OF_TEXT if preset(n).data.name == "python-topics"])
def test_every_client_has_a_batch_of_text(name: str) -> None:
    task = Tokens(preset(name), torch.device("cpu"), 0, 1, download=False)
    assert min(map(len, task.split())) >= preset(name).schedule.batch_size


@pytest.mark.parametrize("name", OF_IMAGES)
def test_every_client_has_a_batch(name: str) -> None:
    experiment = preset(name)
    data, size = experiment.data, experiment.schedule.batch_size
    classes, _ = classes_and_shape(data)
    labels = np.arange(TRAINING.get(data.name, 60_000)) % classes
    parts = partition(data.partition, labels, experiment.clients, experiment.seed)
    assert len(parts) == experiment.clients
    if data.partition.name == "shared" and size:  # a step takes a batch for each of the clients
        assert len(labels) >= experiment.clients * size
    elif data.sampling != "replacement" and size:
        least = min(map(len, parts)) * (1 - data.holdout)
        assert least >= size, "the smallest client never fills a batch"


@pytest.mark.parametrize("name", [n for n in bundled.presets() if preset(n).participation < 1])
def test_the_share_of_clients_is_the_number_that_the_preset_says(name: str) -> None:
    experiment = preset(name)
    exact = experiment.participation * experiment.clients
    assert abs(exact - round(exact)) < 0.01, f"{exact} clients a round"


@pytest.mark.parametrize("name", bundled.presets())
def test_every_setting_has_an_effect(name: str) -> None:
    assert list(ineffective(preset(name))) == []
