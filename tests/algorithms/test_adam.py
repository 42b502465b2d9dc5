"""Adam and AdamW at a client, against torch's objects bit by bit and the papers' rules in numpy."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from tests import bounds
from trainer.algorithms.adam import LocalAdam, LocalAdamW
from trainer.config.optimizers import Adam, AdamW
from trainer.turn import Memory, Server, Turn

SIZE, STEPS = 1000, 7
KINDS: dict[str, Any] = {
    "adam": (LocalAdam, Adam, torch.optim.Adam),
    "adamw": (LocalAdamW, AdamW, torch.optim.AdamW),
}
OPTIONS = [
    {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": decay}
    for (lr, eps), (beta1, beta2), decay in product(
        [(0.01, 1e-8), (0.3, 1e-3)], [(0.9, 0.999), (0.0, 0.5)], [0.0, 0.03]
    )
]
both = pytest.mark.parametrize("kind", KINDS)


def gradients(dtype: torch.dtype, seed: int = 4) -> list[torch.Tensor]:
    stream = torch.Generator().manual_seed(seed)
    return [torch.randn(SIZE, generator=stream, dtype=dtype) for _ in range(STEPS)]


def start(dtype: torch.dtype) -> torch.Tensor:
    return torch.linspace(-2, 2, SIZE, dtype=dtype)


def theirs(kind: str, parameter: torch.nn.Parameter, options: dict[str, float]) -> Any:
    named = {name: value for name, value in options.items() if not name.startswith("beta")}
    betas = (options.get("beta1", 0.9), options.get("beta2", 0.999))
    return KINDS[kind][2]([parameter], betas=betas, fused=True, **named)


def turn(x: torch.Tensor, memory: Memory | None = None) -> Turn:
    held = {} if memory is None else memory
    return Turn(0, Server(x.clone(), {}, x[:0]), x, torch.zeros_like(x), held)


def local(kind: str, options: dict[str, Any], decay: torch.Tensor | None = None) -> LocalAdam:
    built: LocalAdam = KINDS[kind][0](KINDS[kind][1](**options), decay)
    return built


def steps(optimizer: LocalAdam, own: Turn, taken: list[torch.Tensor], lr: float) -> None:
    optimizer.begin(own)
    own.lr = lr
    for gradient in taken:
        own.grads.copy_(gradient)
        optimizer.step(own)


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_turn_has_the_bits_of_torchs_optimizer_and_of_its_state(kind, options, dtype):
    optimizer, own = local(kind, options), turn(start(dtype))
    optimizer.begin(own)
    parameter = torch.nn.Parameter(start(dtype))
    reference = theirs(kind, parameter, options)
    for at, gradient in enumerate(gradients(dtype)):
        own.lr = reference.param_groups[0]["lr"] = options["lr"] / (1 + at)  # as in a warm-up
        parameter.grad = gradient.clone()
        reference.step()
        own.grads.copy_(gradient)
        optimizer.step(own)
        assert torch.equal(own.params, parameter)
    assert own.work.keys() == reference.state[parameter].keys() and not own.memory
    for name, tensor in reference.state[parameter].items():
        assert torch.equal(own.work[name], tensor), name


@both
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_steps_are_those_of_the_papers(kind, options):
    """Algorithm 1 of Adam's paper, algorithm 2 of AdamW's; its lambda is lr times weight_decay."""
    optimizer, own = local(kind, options), turn(start(torch.float64))
    steps(optimizer, own, gradients(torch.float64), options["lr"])
    x, m, v = start(torch.float64).numpy().copy(), np.zeros(SIZE), np.zeros(SIZE)
    lr, wd = options["lr"], options["weight_decay"]
    for t, gradient in enumerate(gradients(torch.float64), 1):
        g = gradient.numpy() + (wd * x if kind == "adam" else 0)
        m = options["beta1"] * m + (1 - options["beta1"]) * g
        v = options["beta2"] * v + (1 - options["beta2"]) * g**2
        m_hat, v_hat = m / (1 - options["beta1"] ** t), v / (1 - options["beta2"] ** t)
        decayed = x - lr * wd * x if kind == "adamw" else x
        x = decayed - lr * m_hat / (np.sqrt(v_hat) + options["eps"])
    # a step is a quotient of two short sums, which may cancel: to the gradient over its root
    largest = np.abs(x).max() + lr * STEPS / (1 - options["beta2"]) ** 0.5
    assert np.abs(own.params.numpy() - x).max() < bounds.of_sums(20 * STEPS, largest, bounds.FP64)


@both
def test_decay_by_coordinate_is_a_parameter_group_of_its_own(kind):
    options, half = {"lr": 0.1, "weight_decay": 0.3}, SIZE // 2
    decay = torch.full((SIZE,), options["weight_decay"], dtype=torch.float64)
    decay[half:] = 0
    own = turn(start(torch.float64))
    steps(local(kind, options, decay), own, gradients(torch.float64), options["lr"])
    ends = []
    for weight_decay in (options["weight_decay"], 0.0):
        parameter = torch.nn.Parameter(start(torch.float64))
        reference = theirs(kind, parameter, options | {"weight_decay": weight_decay})
        for gradient in gradients(torch.float64):
            parameter.grad = gradient
            reference.step()
        ends.append(parameter.detach())
    decayed, spared = ends
    assert torch.equal(own.params[half:], spared[half:])
    # the decay is rounded on its way into the gradient, or beside it; a root may amplify that
    rounding = bounds.of_sums(10 * STEPS, 4 / 0.001**0.5, bounds.FP64)
    assert (own.params[:half] - decayed[:half]).abs().max() < rounding
    assert (own.params[:half] - spared[:half]).abs().max() > 1e6 * rounding


@both
def test_gradients_are_clipped_before_they_enter_the_moments(kind):
    clipped = turn(start(torch.float32))
    steps(local(kind, {"clip_norm": 1.0}), clipped, gradients(torch.float32), 0.1)
    again = turn(start(torch.float32))
    shorter = [gradient * (1.0 / (gradient.norm() + 1e-6)) for gradient in gradients(torch.float32)]
    steps(local(kind, {}), again, shorter, 0.1)
    scale = max(float(gradient.abs().max()) for gradient in shorter)
    rounding = bounds.of_sums(SIZE, scale)
    assert (clipped.work["exp_avg"] - again.work["exp_avg"]).abs().max() < rounding
    plain = turn(start(torch.float32))
    steps(local(kind, {}), plain, gradients(torch.float32), 0.1)
    assert plain.work["exp_avg"].norm() > 10 * clipped.work["exp_avg"].norm()


@both
def test_a_client_that_keeps_its_state_goes_on_where_it_was(kind):
    """Two turns are one training by torch, and the state is the client's memory."""
    options, memory = {"lr": 0.1, "state": "keep"}, {"control": torch.ones(SIZE)}
    optimizer, taken = local(kind, options), gradients(torch.float32)
    first = turn(start(torch.float32), memory)
    steps(optimizer, first, taken[:3], 0.1)
    memory["step"] = memory["step"].cpu()  # as it comes from a file
    second = turn(first.params.clone(), memory)
    steps(optimizer, second, taken[3:], 0.1)
    parameter = torch.nn.Parameter(start(torch.float32))
    reference = theirs(kind, parameter, {"lr": 0.1})
    for gradient in taken:
        parameter.grad = gradient
        reference.step()
    assert torch.equal(second.params, parameter)
    assert optimizer.keeps and not first.work and not second.work
    assert memory.keys() == {"control", "exp_avg", "exp_avg_sq", "step"}
    for name, tensor in reference.state[parameter].items():
        assert torch.equal(memory[name], tensor)


@both
def test_a_turn_that_starts_anew_does_not_depend_on_what_was_before(kind):
    optimizer, memory = local(kind, {"lr": 0.1}), {}
    ends = []
    for seed in (5, 6):
        steps(optimizer, turn(start(torch.float32), memory), gradients(torch.float32, seed), 0.1)
        later = turn(start(torch.float32), memory)
        steps(optimizer, later, gradients(torch.float32, 7), 0.1)
        ends.append(later.params)
    assert torch.equal(*ends)
    assert not optimizer.keeps and not memory
