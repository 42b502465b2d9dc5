"""The one rule of descent against torch.optim.SGD, and clipping against torch's own."""

from itertools import product

import pytest
import torch

from tests import bounds
from trainer.algorithms.optimizer import clip
from trainer.algorithms.sgd import LocalSGD, descend
from trainer.config.optimizers import SGD
from trainer.turn import Server, Turn

SIZE, STEPS = 1000, 7
OPTIONS = [
    {"lr": 0.1, "momentum": momentum, "nesterov": nesterov, "weight_decay": decay}
    for momentum, nesterov, decay in product((0.0, 0.9), (False, True), (0.0, 0.03))
    if momentum or not nesterov
]


def gradients(dtype: torch.dtype) -> list[torch.Tensor]:
    stream = torch.Generator().manual_seed(4)
    return [torch.randn(SIZE, generator=stream, dtype=dtype) for _ in range(STEPS)]


def theirs(options: dict[str, float], dtype: torch.dtype) -> list[torch.Tensor]:
    """The parameters after each step of torch's optimizer."""
    parameter = torch.nn.Parameter(torch.linspace(-2, 2, SIZE, dtype=dtype))
    optimizer = torch.optim.SGD([parameter], **options)
    values = []
    for gradient in gradients(dtype):
        parameter.grad = gradient.clone()
        optimizer.step()
        values.append(parameter.detach().clone())
    return values


def turn(dtype: torch.dtype, memory: dict[str, torch.Tensor]) -> Turn:
    x = torch.linspace(-2, 2, SIZE, dtype=dtype)
    return Turn(0, Server(x.clone(), {}, x[:0]), x, torch.zeros_like(x), memory)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_descend_has_the_bits_of_torchs_sgd(options, dtype):
    x = torch.linspace(-2, 2, SIZE, dtype=dtype)
    rest = {name: value for name, value in options.items() if name != "lr"}
    buffer = torch.zeros_like(x) if options["momentum"] else None
    for gradient, expected in zip(gradients(dtype), theirs(options, dtype), strict=True):
        descend(x, gradient.clone(), options["lr"], momentum_buffer=buffer, **rest)
        assert torch.equal(x, expected)


@pytest.mark.parametrize("state", ["reset", "keep"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_turn_of_local_sgd_has_them_too_and_keeps_only_what_it_was_asked_to(options, state):
    local, memory = LocalSGD(SGD(**options, state=state)), {}
    own = turn(torch.float32, memory)
    own.lr = options["lr"]
    local.begin(own)
    expected = theirs(options, torch.float32)
    for gradient, values in zip(gradients(torch.float32), expected, strict=True):
        own.grads.copy_(gradient)
        local.step(own)
        assert torch.equal(own.params, values)
    assert local.keeps == bool(memory) == (state == "keep" and options["momentum"] > 0)


def test_momentum_goes_on_where_it_was_kept_and_starts_at_zero_if_not():
    options = {"lr": 0.1, "momentum": 0.9}
    expected = theirs(options, torch.float32)
    for state in ("reset", "keep"):
        local, memory = LocalSGD(SGD(**options, state=state)), {}
        first = turn(torch.float32, memory)
        local.begin(first)
        second = turn(torch.float32, memory)
        for at, gradient in enumerate(gradients(torch.float32)):
            own = first if at < 3 else second
            if at == 3:
                second.params.copy_(first.params)
                local.begin(second)
            own.lr = options["lr"]
            own.grads.copy_(gradient)
            local.step(own)
        assert torch.equal(second.params, expected[-1]) == (state == "keep")


def test_decay_by_coordinate_is_a_parameter_group_of_its_own():
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.03}
    half = SIZE // 2
    decay = torch.full((SIZE,), options["weight_decay"], dtype=torch.float64)
    decay[half:] = 0
    local, own = LocalSGD(SGD(**options), decay), turn(torch.float64, {})
    own.lr = options["lr"]
    local.begin(own)
    for gradient in gradients(torch.float64):
        own.grads.copy_(gradient)
        local.step(own)
    spared = theirs(options | {"weight_decay": 0.0}, torch.float64)[-1]
    assert torch.equal(own.params[half:], spared[half:])
    decayed = theirs(options, torch.float64)[-1]
    most = max(float(gradient.abs().max()) for gradient in gradients(torch.float64))
    buffer = (most + 1) / (1 - options["momentum"])  # at most
    rounding = bounds.of_sums(3 * STEPS, buffer, bounds.FP64)
    assert (own.params[:half] - decayed[:half]).abs().max() < rounding
    assert (own.params[:half] - spared[:half]).abs().max() > 1e6 * rounding


@pytest.mark.parametrize("most", [0.01, 1.0, 31.0, 1e9])  # norms are about 31
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_clip_is_torchs_to_rounding(most, dtype):
    rounding = bounds.of_sums(SIZE, unit=torch.finfo(dtype).eps / 2)
    for gradient in gradients(dtype):
        parameter = torch.nn.Parameter(torch.zeros(SIZE, dtype=dtype))
        parameter.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_([parameter], most)
        own = gradient.clone()
        clip(own, most)
        torch.testing.assert_close(own, parameter.grad, rtol=rounding, atol=0)
        assert torch.equal(own, gradient) == bool(gradient.norm() < most)


def test_clip_is_over_all_stages_of_the_model():
    """Two stages hold a half each; a sum over both is what `total` returns."""
    (whole,) = gradients(torch.float64)[:1]
    halves = [part.clone() for part in whole.chunk(2)]
    squares = sum(part.square().sum() for part in halves)
    clip(whole, 1.0)
    for part in halves:
        clip(part, 1.0, lambda value: squares.expand_as(value))
    rounding = bounds.of_sums(SIZE, unit=bounds.FP64)
    torch.testing.assert_close(torch.cat(halves), whole, rtol=rounding, atol=0)
