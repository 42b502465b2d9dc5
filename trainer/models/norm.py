"""Normalisation layers, for the networks that offer a choice of them.

The other networks contain theirs. Layer 1.
"""

from typing import Literal

from torch import nn

Norm = Literal["batch", "group", "none"]


def layers(norm: Norm, channels: int, groups: int = 1) -> list[nn.Module]:
    """Return the layers after a convolution: one, or with `none` an empty list."""
    match norm:
        case "batch":
            return [nn.BatchNorm2d(channels)]
        case "group":
            return [nn.GroupNorm(groups, channels)]
        case "none":
            return []


def chosen(norm: Norm | None, groups: int) -> dict[str, Norm | int]:
    """Return a network's arguments for model.norm and model.groups; empty: it uses its default."""
    if norm is None:
        return {}
    return {"norm": norm, "groups": groups} if norm == "group" else {"norm": norm}
