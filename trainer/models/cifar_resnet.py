"""The residual networks of He et al. for CIFAR, as used for Local SGD: cifar-resnet*.

Only the network is here; data.resize and normalisation belong to trainer/data. It is an
nn.Sequential of stem, blocks and head, so a pipeline stage is a contiguous part of it. Layer 1.
"""

from itertools import pairwise

from torch import Tensor, nn

from trainer.models import fit
from trainer.models.norm import Norm, layers


class OptionA(nn.Module):
    """He et al.'s shortcut without parameters: every other pixel, padded with channels of zeros."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.zeros = (after - before) // 2  # on each side of the channels

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.zeros, self.zeros))


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut; doubling the channels halves the side."""

    def __init__(
        self, before: int, after: int, norm: Norm, groups: int, activation: type[nn.Module]
    ) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(before, after, 3, after // before, padding=1, bias=False),
            *layers(norm, after, groups),
            activation(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            *layers(norm, after, groups),
        )
        self.shortcut = OptionA(before, after) if after != before else nn.Identity()
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.activation(self.residual(x) + self.shortcut(x))
        return out


class CifarResNet(nn.Sequential):
    """ResNet-`depth` of He et al. 2016, section 4.2: 853,018 parameters at depth 56, 10 classes.

    With group norm, SiLU replaces ReLU. This is intentional: the label noise of Gu et al. 2023
    needs a smooth loss.
    """

    def __init__(
        self,
        classes: int = 10,
        in_shape: tuple[int, int, int] = (3, 32, 32),
        *,
        depth: int,
        norm: Norm = "batch",
        groups: int = 8,
    ) -> None:
        assert depth % 6 == 2, "three stages of blocks with two convolutions, a stem and a head"
        channels, _, _ = in_shape
        # After two strides of 2, BatchNorm needs more than one value per image.
        fit.at_least(f"cifar-resnet{depth}", in_shape, 5)
        activation = nn.SiLU if norm == "group" else nn.ReLU
        widths = [16, *(width for width in (16, 32, 64) for _ in range(depth // 6))]
        super().__init__(
            nn.Conv2d(channels, 16, 3, padding=1, bias=False),
            *layers(norm, 16, groups),
            activation(),
            *(Block(before, after, norm, groups, activation) for before, after in pairwise(widths)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, classes),
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)
