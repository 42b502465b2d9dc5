"""Models: published counts, shapes, gradients, first values, and that the smallest learns."""

from math import prod

import pytest
import torch
from torch import nn

from tests import bounds
from trainer.config.data import Data
from trainer.config.errors import ConfigError
from trainer.config.models import MODELS
from trainer.data.batches import Normalise
from trainer.data.load import load
from trainer.data.sampling import Sampler
from trainer.models.cnn import DigitsCNN
from trainer.models.vgg import VGG11

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)
SHAPES = {"digits-cnn": (1, 8, 8), "vgg11": (1, 32, 32)} | {
    name: MNIST for name in ("softmax", "mnist-cnn", "fedavg-cnn", "fedga-cnn", "dropout-cnn")
}  # all others: CIFAR
DEEP = {"cifar-resnet110", "cifar-resnet1202"}  # run at depth 20: their blocks are the same

OF_IMAGES = [name for name, network in MODELS.items() if network.takes == "images"]

# model, its choice, classes, shape; parameters, tensors, BatchNorm layers, scalars in buffers
PUBLISHED = [
    ("softmax", {}, 10, MNIST, 7_850, 2, 0, 0),
    ("digits-cnn", {}, 10, (1, 8, 8), 6_090, 6, 0, 0),
    ("lenet", {}, 10, MNIST, 44_426, 10, 0, 0),
    ("lenet", {}, 10, CIFAR, 62_006, 10, 0, 0),
    ("lenet", {}, 100, CIFAR, 69_656, 10, 0, 0),
    ("mnist-cnn", {}, 10, MNIST, 582_026, 8, 0, 0),
    ("fedavg-cnn", {}, 10, MNIST, 1_663_370, 8, 0, 0),
    ("fedga-cnn", {}, 10, MNIST, 62_346, 6, 0, 0),
    ("fedga-cnn", {}, 47, MNIST, 100_271, 6, 0, 0),
    ("dropout-cnn", {}, 10, MNIST, 1_199_882, 8, 0, 0),
    ("fedga-resnet", {}, 10, CIFAR, 14_088_906, 22, 0, 0),
    ("fedga-resnet", {"norm": "batch"}, 10, CIFAR, 14_098_506, 62, 20, 9_620),
    ("fedga-resnet", {}, 100, CIFAR, 14_135_076, 22, 0, 0),
    ("fedga-resnet", {"norm": "batch"}, 100, CIFAR, 14_144_676, 62, 20, 9_620),
    ("resnet18", {}, 10, CIFAR, 11_173_962, 62, 20, 9_620),
    ("vgg11", {}, 47, (1, 32, 32), 19_892_207, 38, 8, 2_504),
    ("cifar-resnet20", {}, 10, CIFAR, 269_722, 59, 19, 1_376 + 19),
    ("cifar-resnet32", {}, 10, CIFAR, 464_154, 95, 31, 2_272 + 31),
    ("cifar-resnet44", {}, 10, CIFAR, 658_586, 131, 43, 3_168 + 43),
    ("cifar-resnet56", {}, 10, CIFAR, 853_018, 167, 55, 4_064 + 55),
    ("cifar-resnet56", {"norm": "group", "groups": 8}, 10, CIFAR, 853_018, 167, 0, 0),
    ("cifar-resnet110", {}, 10, CIFAR, 1_727_962, 329, 109, 8_096 + 109),
    ("cifar-resnet1202", {}, 10, CIFAR, 19_421_274, 3_605, 1_201, 89_632 + 1_201),
    ("cifar-vgg11", {}, 10, CIFAR, 9_225_610, 18, 0, 0),
    ("cifar-vgg13", {}, 10, CIFAR, 9_410_122, 22, 0, 0),
    ("cifar-vgg16", {}, 10, CIFAR, 14_719_818, 28, 0, 0),
    ("cifar-vgg19", {}, 10, CIFAR, 20_029_514, 34, 0, 0),
    ("resnet50", {}, 1000, (3, 224, 224), 25_557_032, 161, 53, 53_120 + 53),
]


@pytest.mark.parametrize(
    ("name", "choice", "classes", "in_shape", "parameters", "tensors", "norms", "buffers"),
    PUBLISHED,
)
def test_published_counts(name, choice, classes, in_shape, parameters, tensors, norms, buffers):
    with torch.device("meta"):  # shapes without values: counting needs no memory
        model = MODELS[name](classes=classes, in_shape=in_shape, **choice)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(list(model.parameters())) == tensors
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in model.modules()) == norms
    assert sum(buffer.numel() for buffer in model.buffers()) == buffers
    assert all(p.requires_grad for p in model.parameters())


def test_every_model_has_a_published_count():
    assert {name for name, *_ in PUBLISHED} == set(OF_IMAGES)  # others: test_language.py


def test_vgg_is_mostly_classifier():
    classifier = [
        p.numel() for layer in VGG11() if isinstance(layer, nn.Linear) for p in layer.parameters()
    ]
    assert classifier == [256 * 4096, 4096, 4096 * 4096, 4096, 4096 * 47, 47]


SOME_SHAPES = [
    *((name, {}, 10, SHAPES.get(name, CIFAR)) for name in OF_IMAGES if name not in DEEP),
    ("cifar-resnet20", {"norm": "group", "groups": 4}, 10, CIFAR),
    ("cifar-resnet20", {}, 100, (1, 28, 28)),
    ("cifar-resnet20", {"norm": "group"}, 10, (1, 33, 20)),
    ("fedga-resnet", {"norm": "batch"}, 10, CIFAR),
    ("fedga-resnet", {}, 47, MNIST),
    ("softmax", {}, 3, (2, 5, 7)),
    ("digits-cnn", {}, 3, (3, 16, 12)),
    ("lenet", {}, 10, MNIST),
    ("lenet", {}, 100, CIFAR),
    ("lenet", {}, 2, (1, 16, 16)),
    ("mnist-cnn", {}, 47, MNIST),
    ("mnist-cnn", {}, 10, CIFAR),
    ("fedavg-cnn", {}, 10, (1, 8, 8)),
    ("fedavg-cnn", {}, 47, (3, 29, 31)),
    ("fedga-cnn", {}, 47, (3, 17, 30)),
    ("dropout-cnn", {}, 47, (3, 9, 32)),
    ("resnet18", {}, 100, CIFAR),
    ("resnet18", {}, 10, MNIST),
    ("vgg11", {}, 10, CIFAR),
    ("cifar-vgg11", {}, 100, (1, 32, 32)),
    ("resnet50", {}, 7, (1, 33, 47)),
]


@pytest.mark.parametrize(("name", "choice", "classes", "in_shape"), SOME_SHAPES)
def test_logits_per_class_and_a_gradient_for_every_parameter(name, choice, classes, in_shape):
    torch.manual_seed(0)
    model = MODELS[name](classes=classes, in_shape=in_shape, **choice)
    out = model(torch.randn(4, *in_shape))
    assert out.shape == (4, classes)
    assert not torch.allclose(out.exp().sum(1), torch.ones(4)), "logits, no log-softmax"
    nn.functional.cross_entropy(out, torch.arange(4) % classes).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        if name == "vgg11" and key.endswith("bias") and int(key.split(".")[0]) < len(model) - 6:
            continue  # of a convolution before BatchNorm, which takes any constant off again
        assert parameter.grad.count_nonzero() > 0, key


@pytest.mark.parametrize("name", [name for name in OF_IMAGES if name not in DEEP])
def test_a_run_of_layers_is_a_pipeline_stage(name):
    torch.manual_seed(0)
    in_shape = SHAPES.get(name, CIFAR)
    model = MODELS[name](classes=10, in_shape=in_shape).eval()
    x = torch.randn(2, *in_shape)
    with torch.no_grad():
        whole = model(x)
        for cut in range(1, len(model), max(1, len(model) // 4)):
            first, second = nn.Sequential(*[*model][:cut]), nn.Sequential(*[*model][cut:])
            assert torch.equal(second(first(x)), whole)


@pytest.mark.parametrize(
    ("name", "in_shape", "remedy"),
    [
        ("vgg11", MNIST, "vgg11 needs images of 32x32, not 28x28; set data.resize=32"),
        ("vgg11", (3, 64, 64), "data.resize=32"),
        ("cifar-vgg16", MNIST, "cifar-vgg16 needs images of 32x32, not 28x28; set data.resize=32"),
        ("lenet", (1, 8, 8), "lenet needs images of 16x16 or more, not 8x8; set data.resize to"),
        ("mnist-cnn", (1, 8, 8), "choose model.name=digits-cnn"),
        ("fedga-cnn", (1, 15, 28), "at least 16, or choose model.name=digits-cnn"),
        ("fedavg-cnn", (1, 5, 8), "fedavg-cnn needs images of 6x6 or more, not 5x8"),
        ("dropout-cnn", (1, 5, 5), "dropout-cnn needs images of 6x6 or more, not 5x5"),
        ("resnet18", (3, 4, 4), "set data.resize to at least 9"),
        ("fedga-resnet", (3, 8, 8), "set data.resize to at least 9"),
        ("cifar-resnet56", (3, 4, 9), "cifar-resnet56 needs images of 5x5 or more, not 4x9"),
        ("resnet50", (3, 32, 28), "resnet50 needs images of 32x32 or more, not 32x28"),
        ("digits-cnn", (1, 3, 8), "set data.resize to at least 4"),
    ],
)
def test_images_that_do_not_fit(name, in_shape, remedy):
    with pytest.raises(ConfigError) as caught:
        MODELS[name](classes=10, in_shape=in_shape)
    assert caught.value.key == "model.name"
    assert remedy in caught.value.problem
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "choice", "side"),
    [
        ("digits-cnn", {}, 4),
        ("lenet", {}, 16),
        ("mnist-cnn", {}, 16),
        ("fedavg-cnn", {}, 6),
        ("fedga-cnn", {}, 16),
        ("dropout-cnn", {}, 6),
        ("resnet18", {}, 9),
        ("fedga-resnet", {"norm": "batch"}, 9),
        ("cifar-resnet20", {}, 5),
    ],
)
def test_one_smallest_image_is_enough_to_train_on(name, choice, side):
    """A last batch may hold one image, and BatchNorm has no variance of one value."""
    model = MODELS[name](classes=10, in_shape=(1, side, side), **choice).train()
    assert model(torch.randn(1, 1, side, side)).isfinite().all()


# ---------------------------------------------------------------------------------------------
# what they start from


def weights_of(model, kind):
    return [(layer.weight.detach(), layer) for layer in model.modules() if isinstance(layer, kind)]


def fan_in(weight):
    return prod(weight.shape[1:])


def fan_out(weight):
    return weight.shape[0] * prod(weight.shape[2:])


@pytest.mark.parametrize(
    ("name", "choice", "kinds", "fan"),
    [
        ("cifar-resnet20", {}, nn.Conv2d, fan_in),
        ("cifar-resnet20", {"norm": "group"}, nn.Conv2d, fan_in),
        ("cifar-vgg11", {}, (nn.Conv2d, nn.Linear), fan_in),
        ("resnet50", {}, nn.Conv2d, fan_out),
    ],
)
def test_kaiming_normal_weights(name, choice, kinds, fan):
    torch.manual_seed(0)
    model = MODELS[name](classes=10, in_shape=CIFAR, **choice)
    for weight, layer in weights_of(model, kinds):
        scaled = weight / (2 / fan(weight)) ** 0.5
        assert scaled.std() == pytest.approx(1, abs=bounds.of_deviation(weight.numel())), layer
        # Of a normal distribution 4.55 % lie beyond two deviations, of a uniform one nothing.
        beyond = pytest.approx(0.0455, abs=bounds.of_share(0.0455, weight.numel()))
        assert (scaled.abs() > 2).float().mean() == beyond, layer


@pytest.mark.parametrize("choice", [{}, {"norm": "group"}])
def test_the_head_of_a_cifar_resnet_starts_small_and_its_norms_at_one(choice):
    torch.manual_seed(0)
    model = MODELS["cifar-resnet20"](classes=100, in_shape=CIFAR, **choice)
    ((head, layer),) = weights_of(model, nn.Linear)
    assert head.std() == pytest.approx(0.01, rel=bounds.of_deviation(head.numel()))
    assert layer.bias.count_nonzero() == 0
    norms = weights_of(model, (nn.BatchNorm2d, nn.GroupNorm))
    assert len(norms) == 19
    assert all((w == 1).all() and layer.bias.count_nonzero() == 0 for w, layer in norms)


def test_biases_of_cifar_vgg_and_all_of_softmax_start_at_zero():
    vgg = MODELS["cifar-vgg11"](classes=10, in_shape=CIFAR)
    biases = [p for name, p in vgg.named_parameters() if name.endswith("bias")]
    assert len(biases) == 9
    softmax = MODELS["softmax"](classes=10, in_shape=MNIST)
    assert all(p.count_nonzero() == 0 for p in [*biases, *softmax.parameters()])


@pytest.mark.parametrize("name", ["fedavg-cnn", "fedga-cnn", "dropout-cnn", "fedga-resnet"])
def test_pytorchs_own_start_is_uniform(name):
    """Where the original sets nothing: within 1 / sqrt(fan in), and up to it."""
    torch.manual_seed(0)
    model = MODELS[name](classes=10, in_shape=SHAPES.get(name, CIFAR))
    for weight, layer in weights_of(model, (nn.Conv2d, nn.Linear)):
        assert 0.95 < weight.abs().max() * fan_in(weight) ** 0.5 <= 1 + bounds.of_sums(2), layer


# ---------------------------------------------------------------------------------------------


def test_digits_are_learned():
    """Fifteen passes over 1,437 digits: at least 95 in 100 unseen ones right."""
    torch.manual_seed(0)
    digits = load(Data(), download=False)
    model, normalise = DigitsCNN(), Normalise(digits.mean, digits.std, digits.scale)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    n = len(digits.x_train)
    deal = Sampler([torch.arange(n)], batch_size=32, seed=0)
    for k in range(15 * deal.steps_per_pass(0)):
        batch = deal.places(0, k)
        logits = model(normalise(digits.x_train[batch]))
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, digits.y_train[batch]).backward()
        optimizer.step()
    with torch.no_grad():
        right = model(normalise(digits.x_test)).argmax(1) == digits.y_test
    assert right.float().mean() >= 0.95
