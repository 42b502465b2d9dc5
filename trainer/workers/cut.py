"""Where a network is cut into the stages of a pipeline.

Every network is an nn.Sequential, so a stage is a contiguous part of its layers. It begins with a
layer that has parameters: what follows such a layer without any, such as an activation or a
pooling, stays with it, which also makes most of what stages send to each other smaller.
"""

import copy
import time
from collections.abc import Sequence
from functools import cache
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from trainer.config.errors import ConfigError
from trainer.config.parallel import Parallel

KEY = "parallel.pipeline"


def cut(
    model: nn.Sequential, settings: Parallel, costs: Sequence[float] | None = None
) -> list[int]:
    """Return the first layer of each stage, and the number of layers; costs: of each layer."""
    layers, sizes = list(model), [_size(layer) for layer in model]
    if settings.layers is not None:
        given = _as_given(sizes, settings.layers)
        _refuse_shared(layers, given)
        return given
    starts = [at for at, size in enumerate(sizes) if size]
    if len(starts) < settings.stages:
        raise ConfigError(
            KEY,
            f"{settings.stages} stages, but the model has {len(starts)} layers with parameters; "
            f"{_fewer(len(starts), settings)}, or choose a deeper model",
        )
    starts[0] = 0
    if costs is None:
        costs = [size if settings.split == "parameters" else bool(size) for size in sizes]
    units = [sum(costs[a:b]) for a, b in pairwise([*starts, len(layers)])]
    found = [*(starts[unit] for unit in evenly(units, settings.stages)), len(layers)]
    _refuse_shared(layers, found)
    return found


def _fewer(layers: int, settings: Parallel) -> str:
    """Return what to set for at most so many stages."""
    chunks = layers // settings.pipeline
    if settings.schedule != "interleaved":
        return f"set it to at most {layers}"
    if chunks > 1:
        return f"set parallel.chunks to at most {chunks}"
    also = "" if chunks else f", and this to at most {layers}"
    return f"set parallel.schedule to gpipe or 1f1b{also}"


def _as_given(sizes: Sequence[int], counts: Sequence[int]) -> list[int]:
    """Return the edges of stages with so many layers; raise if that is no cut of the model."""
    edges = [0, *accumulate(counts)]
    if edges[-1] != len(sizes):
        raise ConfigError(
            "parallel.layers",
            f"{list(counts)} are {edges[-1]} layers, but the model has {len(sizes)}; give numbers "
            "that add up to it, or leave it empty",
        )
    for stage, (a, b) in enumerate(pairwise(edges)):
        if not any(sizes[a:b]):
            raise ConfigError(
                "parallel.layers",
                f"stage {stage} would have no parameters; give it more layers",
            )
    return edges


def evenly(costs: Sequence[float], parts: int) -> list[int]:
    """Return the first item of each of `parts` contiguous parts, whose largest sum is least.

    Of the equally good, the one whose sums' squares add up to less.
    """
    sums = [0.0]
    for cost in costs:
        sums.append(sums[-1] + cost)

    @cache
    def best(end: int, count: int) -> tuple[float, float, int]:
        """Return largest sum, sum of squares, and the last part's start, for the first `end`."""
        if count == 1:
            return sums[end], sums[end] ** 2, 0
        return min(
            (max(most, part), squares + part**2, start)
            for start in range(count - 1, end)
            for most, squares, _ in [best(start, count - 1)]
            for part in [sums[end] - sums[start]]
        )

    found, end = [], len(costs)
    for count in range(parts, 0, -1):
        end = best(end, count)[2]
        found.append(end)
    return found[::-1]


def seconds(model: nn.Sequential, x: Tensor, *, bf16: bool = False) -> list[float]:
    """Measure each layer's forward and backward pass on inputs x (B, ...), on x's device.

    One layer at a time is there, since the whole model may not fit.
    """
    measured = []
    with torch.random.fork_rng([x.device] if x.is_cuda else []), torch.enable_grad():
        for layer in model:
            spent, x = _measured(layer, x, bf16=bf16)
            measured.append(spent)
    return measured


def _measured(layer: nn.Module, x: Tensor, *, bf16: bool) -> tuple[float, Tensor]:
    """Return the seconds of a layer's passes, and its output."""
    layer = copy.deepcopy(layer).to(x.device).train()
    for _ in range(2):  # the first pass only warms up
        given = x.detach().requires_grad_(x.is_floating_point())
        start = _now(x.device)
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=bf16):
            output: Tensor = layer(given)
        if output.requires_grad:
            output.backward(torch.ones_like(output))
        spent = _now(x.device) - start
    return spent, output.detach()


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _size(layer: nn.Module) -> int:
    return sum(parameter.numel() for parameter in layer.parameters())


def _refuse_shared(layers: Sequence[nn.Module], edges: Sequence[int]) -> None:
    seen: set[nn.Parameter] = set()
    for start, end in pairwise(edges):
        own = {p for layer in layers[start:end] for p in layer.parameters()}
        if own & seen:
            raise ConfigError(
                KEY,
                "two of the stages would share parameters; set it to 1, or choose a model "
                "whose layers share none",
            )
        seen |= own
