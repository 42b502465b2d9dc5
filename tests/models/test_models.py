"""Models: the published counts, the shapes, and that the smallest one learns."""

import pytest
import torch
from torch import nn

from trainer.config.errors import ConfigError
from trainer.config.learning import Data
from trainer.data.batches import Normalise, Position, Sampler
from trainer.data.load import load
from trainer.models.cnn import DigitsCNN, LeNet, MnistCNN
from trainer.models.resnet import ResNet18
from trainer.models.vgg import VGG11

# model, classes, shape; parameters, tensors, BatchNorm layers, scalars in buffers
PUBLISHED = [
    (DigitsCNN, 10, (1, 8, 8), 6_090, 6, 0, 0),
    (LeNet, 10, (1, 28, 28), 44_426, 10, 0, 0),
    (LeNet, 10, (3, 32, 32), 62_006, 10, 0, 0),
    (LeNet, 100, (3, 32, 32), 69_656, 10, 0, 0),
    (MnistCNN, 10, (1, 28, 28), 582_026, 8, 0, 0),
    (ResNet18, 10, (3, 32, 32), 11_173_962, 62, 20, 9_620),
    (VGG11, 47, (1, 32, 32), 19_892_207, 38, 8, 2_504),
]


@pytest.mark.parametrize(
    ("build", "classes", "in_shape", "parameters", "tensors", "norms", "buffers"), PUBLISHED
)
def test_published_counts(
    build: type[nn.Module],
    classes: int,
    in_shape: tuple[int, int, int],
    parameters: int,
    tensors: int,
    norms: int,
    buffers: int,
) -> None:
    model = build(classes, in_shape)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(list(model.parameters())) == tensors
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in model.modules()) == norms
    assert sum(buffer.numel() for buffer in model.buffers()) == buffers
    assert all(p.requires_grad for p in model.parameters())


def test_vgg_is_mostly_classifier() -> None:
    classifier = [
        p.numel() for layer in VGG11() if isinstance(layer, nn.Linear) for p in layer.parameters()
    ]
    assert classifier == [256 * 4096, 4096, 4096 * 4096, 4096, 4096 * 47, 47]


@pytest.mark.parametrize(
    ("build", "classes", "in_shape"),
    [
        (DigitsCNN, 10, (1, 8, 8)),
        (DigitsCNN, 3, (3, 16, 12)),
        (LeNet, 10, (1, 28, 28)),
        (LeNet, 100, (3, 32, 32)),
        (LeNet, 2, (1, 16, 16)),
        (MnistCNN, 47, (1, 28, 28)),
        (MnistCNN, 10, (3, 32, 32)),
        (ResNet18, 100, (3, 32, 32)),
        (ResNet18, 10, (1, 28, 28)),
        (ResNet18, 10, (1, 9, 9)),
        (VGG11, 47, (1, 32, 32)),
        (VGG11, 10, (3, 32, 32)),
    ],
)
def test_logits_per_class(
    build: type[nn.Module], classes: int, in_shape: tuple[int, int, int]
) -> None:
    model = build(classes, in_shape)
    out = model(torch.randn(2, *in_shape))
    assert out.shape == (2, classes)
    assert not torch.allclose(out.exp().sum(1), torch.ones(2)), "logits, no log-softmax"
    out.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("build", [DigitsCNN, LeNet, MnistCNN, ResNet18, VGG11])
def test_a_run_of_layers_is_a_pipeline_stage(build: type[nn.Sequential]) -> None:
    torch.manual_seed(0)
    model = build().eval()
    shape = {DigitsCNN: (1, 8, 8), ResNet18: (3, 32, 32), VGG11: (1, 32, 32)}
    x = torch.randn(2, *shape.get(build, (1, 28, 28)))
    with torch.no_grad():
        whole = model(x)
        for cut in range(1, len(model), 3):
            first, second = nn.Sequential(*[*model][:cut]), nn.Sequential(*[*model][cut:])
            assert torch.equal(second(first(x)), whole)


@pytest.mark.parametrize(
    ("build", "in_shape", "remedy"),
    [
        (VGG11, (1, 28, 28), "vgg11 needs images of 32x32, not 28x28; set data.resize=32"),
        (VGG11, (3, 64, 64), "data.resize=32"),
        (LeNet, (1, 8, 8), "lenet needs images of 16x16 or more, not 8x8; set data.resize to"),
        (MnistCNN, (1, 8, 8), "choose model.name=digits-cnn"),
        (ResNet18, (3, 4, 4), "data.resize=32"),
        (DigitsCNN, (1, 3, 8), "set data.resize to at least 4"),
    ],
)
def test_images_that_do_not_fit(
    build: type[nn.Module], in_shape: tuple[int, int, int], remedy: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build(10, in_shape)
    assert caught.value.key == "model.name"
    assert remedy in caught.value.problem
    assert "\n" not in str(caught.value)


def test_digits_are_learned() -> None:
    """Fifteen passes over 1,437 digits: at least 95 in 100 unseen ones right."""
    torch.manual_seed(0)
    digits = load(Data(), download=False)
    model, normalise = DigitsCNN(), Normalise(digits.mean, digits.std, digits.scale)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    n = len(digits.x_train)
    deal, position = Sampler(torch.arange(n), batch_size=32, seed=0, client=0), Position()
    while position.epoch < 15:
        batch = deal.next_batch(position)
        logits = model(normalise(digits.x_train[batch]))
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, digits.y_train[batch]).backward()
        optimizer.step()
    with torch.no_grad():
        right = model(normalise(digits.x_test)).argmax(1) == digits.y_test
    assert right.float().mean() >= 0.95
