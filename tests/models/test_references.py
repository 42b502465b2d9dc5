"""Models against a second implementation: torchvision's, or the paper's as plain functions."""

import pytest
import torch
from torch.nn import functional as F

from tests import bounds
from trainer.config.models import MODELS
from trainer.data.torchvision_cpu import torchvision
from trainer.models import weights
from trainer.models.cifar_resnet import OptionA

CIFAR = (3, 32, 32)


def disturbed(model):
    """The model with no value as it was made: zeros and ones hide a layer that is left out."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def assert_same(ours, theirs, model, images):
    """Equal but for the rounding of float64. A value comes out of one layer after the other, each
    of which adds its inputs, and where it normalises or differentiates also those of all images."""
    layers = [weight for weight in model.parameters() if weight.ndim > 1]
    additions = sum(weight[0].numel() + images[:, 0].numel() for weight in layers)
    rounding = bounds.of_sums(additions, theirs.detach().abs().max(), bounds.FP64)
    assert ours.dtype == theirs.dtype == torch.float64
    assert (ours - theirs).abs().max() < rounding


def test_resnet50_is_torchvisions(tmp_path):
    torch.manual_seed(0)
    theirs = torchvision().models.resnet50(weights=None, num_classes=10)
    torch.save(theirs.state_dict(), tmp_path / "resnet50.pth")
    torch.manual_seed(1)
    ours = MODELS["resnet50"](classes=10, in_shape=CIFAR)
    weights.load(ours, tmp_path / "resnet50.pth")
    x, y = torch.randn(3, 3, 48, 48), torch.tensor([1, 2, 3])
    for model in (ours, theirs):
        F.cross_entropy(model.train()(x), y).backward()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad), name
    for (name, a), b in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        assert torch.equal(a, b), name
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_resnet50_starts_as_torchvisions_does():
    """Layer by layer the same deviation, of different draws; norms to the bit."""
    torch.manual_seed(0)
    theirs = torchvision().models.resnet50(weights=None, num_classes=10)
    ours = MODELS["resnet50"](classes=10, in_shape=CIFAR)
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if a.ndim > 1:
            ratio = float(a.detach().std() / b.detach().std())
            assert ratio == pytest.approx(1, abs=2**0.5 * bounds.of_deviation(a.numel())), name
        else:
            assert a.numel() == 10 or torch.equal(a, b), name


def local_sgd_resnet(tensors, x, *, blocks, activation, groups):
    """He et al.'s network for CIFAR, by the names that Local SGD's files have."""

    def norm(x, name):
        weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        if groups:
            return F.group_norm(x, groups, weight, bias)
        return F.batch_norm(x, None, None, weight, bias, training=True)

    x = activation(norm(F.conv2d(x, tensors["conv1.weight"], padding=1), "bn1"))
    for stage in (1, 2, 3):
        for block in range(blocks):
            at = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            inner = F.conv2d(x, tensors[f"{at}.conv1.weight"], stride=stride, padding=1)
            inner = activation(norm(inner, f"{at}.bn1"))
            inner = norm(F.conv2d(inner, tensors[f"{at}.conv2.weight"], padding=1), f"{at}.bn2")
            if stride == 2:
                zeros = torch.zeros_like(x[:, : x.shape[1] // 2, ::2, ::2])
                x = torch.cat([zeros, x[:, :, ::2, ::2], zeros], dim=1)
            x = activation(inner + x)
    return x.mean((2, 3)) @ tensors["linear.weight"].T + tensors["linear.bias"]


def local_sgd_tensors(blocks, *, grouped):
    """Random values under the names, and in the order, of the files that Gu et al. released."""
    generator = torch.Generator().manual_seed(3)
    tensors = {}

    def add(name, *shape):
        tensors[name] = 0.2 * torch.randn(shape, generator=generator)

    def add_norm(name, width):
        add(f"{name}.weight", width)
        add(f"{name}.bias", width)
        if not grouped:
            add(f"{name}.running_mean", width)
            tensors[f"{name}.running_var"] = torch.rand(width, generator=generator)
            tensors[f"{name}.num_batches_tracked"] = torch.tensor(5)

    add("conv1.weight", 16, 3, 3, 3)
    add_norm("bn1", 16)
    before = 16
    for stage, width in ((1, 16), (2, 32), (3, 64)):
        for block in range(blocks):
            at = f"layer{stage}.{block}"
            add(f"{at}.conv1.weight", width, before, 3, 3)
            add_norm(f"{at}.bn1", width)
            if grouped:  # theirs lists both norms before the second convolution
                add_norm(f"{at}.bn2", width)
            add(f"{at}.conv2.weight", width, width, 3, 3)
            if not grouped:
                add_norm(f"{at}.bn2", width)
            before = width
    add("linear.weight", 10, 64)
    add("linear.bias", 10)
    return tensors


@pytest.mark.parametrize(("depth", "blocks"), [(20, 3), (56, 9)])
@pytest.mark.parametrize(
    ("choice", "activation", "groups"),
    [({"norm": "batch"}, F.relu, 0), ({"norm": "group", "groups": 8}, F.silu, 8)],
    ids=["batch", "group"],
)
def test_cifar_resnet_is_local_sgds_and_loads_its_files(
    depth, blocks, choice, activation, groups, tmp_path
):
    tensors = local_sgd_tensors(blocks, grouped=bool(groups))
    torch.save(tensors, tmp_path / "released.pt")
    model = MODELS[f"cifar-resnet{depth}"](classes=10, in_shape=CIFAR, **choice)
    weights.load(model, tmp_path / "released.pt")
    if not groups:
        loaded = [b for name, b in model.named_buffers() if name.endswith("running_var")]
        released = [t for name, t in tensors.items() if name.endswith("running_var")]
        assert all(torch.equal(a, b) for a, b in zip(loaded, released, strict=True))
    x = torch.randn(4, *CIFAR, generator=torch.Generator().manual_seed(0))
    doubles = {name: tensor.double() for name, tensor in tensors.items()}
    x = x.double()
    expected = local_sgd_resnet(doubles, x, blocks=blocks, activation=activation, groups=groups)
    assert expected.std() > 1e-3
    assert_same(model.double()(x), expected, model, x)


def test_the_option_a_shortcut_has_no_parameters_and_halves_the_image():
    shortcut = OptionA(16, 32)
    assert not [*shortcut.parameters(), *shortcut.buffers()]
    x = torch.randn(2, 16, 9, 8)
    out = shortcut(x)
    assert out.shape == (2, 32, 5, 4)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert out[:, :8].count_nonzero() == out[:, 24:].count_nonzero() == 0


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_fedga_resnet_has_blocks_of_one_convolution(norm):
    torch.manual_seed(0)
    model = disturbed(MODELS["fedga-resnet"](classes=10, in_shape=CIFAR, norm=norm)).double()
    parameters = iter(model.parameters())

    def convolve(x, stride=1):
        x = F.conv2d(x, next(parameters), stride=stride, padding=1)
        if norm == "none":
            return x
        return F.batch_norm(x, None, None, next(parameters), next(parameters), training=True)

    x = images = torch.randn(2, *CIFAR).double()
    x = convolve(x).relu()
    for stage in range(4):
        if stage:
            x = convolve(x, stride=2)
        for _ in range(4):
            x = (convolve(x).relu() + x).relu()
    expected = F.linear(F.avg_pool2d(x, 4).flatten(1), next(parameters), next(parameters))
    assert next(parameters, None) is None
    assert_same(model(images), expected, model, images)


@pytest.mark.parametrize(
    ("depth", "convolutions"),
    [(11, "1 1 2 2 2"), (13, "2 2 2 2 2"), (16, "2 2 3 3 3"), (19, "2 2 4 4 4")],
)
def test_cifar_vgg_is_silu_and_average_pooling(depth, convolutions):
    torch.manual_seed(0)
    model = MODELS[f"cifar-vgg{depth}"](classes=10, in_shape=CIFAR)
    parameters = iter(disturbed(model).double().parameters())
    x = images = torch.randn(2, *CIFAR).double()
    for count in map(int, convolutions.split()):
        for _ in range(count):
            x = F.silu(F.conv2d(x, next(parameters), next(parameters), padding=1))
        x = F.avg_pool2d(x, 2)
    expected = F.linear(x.flatten(1), next(parameters), next(parameters))
    assert next(parameters, None) is None
    assert_same(model(images), expected, model, images)


def fedavg_cnn(x, w):
    for first in (0, 2):
        x = F.max_pool2d(F.conv2d(x, w[first], w[first + 1], padding=1).relu(), 2, padding=1)
    assert x.shape[1:] == (64, 7, 7)
    return F.linear(F.linear(x.flatten(1), w[4], w[5]).relu(), w[6], w[7])


def fedga_cnn(x, w):
    for first in (0, 2):
        x = F.max_pool2d(F.conv2d(x, w[first], w[first + 1]).relu(), 2)
    assert x.shape[1:] == (64, 4, 4)
    return F.linear(x.flatten(1), w[4], w[5])


def dropout_cnn(x, w):
    x = F.conv2d(F.conv2d(x, w[0], w[1]).relu(), w[2], w[3]).relu()
    x = F.dropout(F.max_pool2d(x, 2), 0.25).flatten(1)
    assert x.shape[1:] == (9216,)
    return F.linear(F.dropout(F.linear(x, w[4], w[5]).relu(), 0.5), w[6], w[7])


@pytest.mark.parametrize(
    ("name", "reference"),
    [("fedavg-cnn", fedavg_cnn), ("fedga-cnn", fedga_cnn), ("dropout-cnn", dropout_cnn)],
)
def test_cnns_for_mnist_layer_by_layer(name, reference):
    torch.manual_seed(0)
    model = MODELS[name](classes=10, in_shape=(1, 28, 28)).double()
    x, values = torch.randn(3, 1, 28, 28).double(), list(model.parameters())
    torch.manual_seed(5)  # the same units are dropped
    expected = reference(x, values)
    torch.manual_seed(5)
    assert_same(model(x), expected, model, x)


def test_logits_under_cross_entropy_train_as_log_softmax_under_nll():
    """What DDL25's network ends in: losses and gradients agree, for the same dropped units."""
    torch.manual_seed(0)
    model = MODELS["dropout-cnn"](classes=10, in_shape=(1, 28, 28)).double()
    x, y = torch.randn(8, 1, 28, 28).double(), torch.arange(8)
    gradients = []
    for loss in (F.cross_entropy, lambda logits, y: F.nll_loss(F.log_softmax(logits, 1), y)):
        torch.manual_seed(5)
        model.zero_grad()
        loss(model(x), y).backward()
        gradients.append(torch.cat([p.grad.reshape(-1) for p in model.parameters()]))
    assert gradients[0].norm() > 0.1
    assert_same(*gradients, model, x)
