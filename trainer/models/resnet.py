"""Owns the residual network for CIFAR-sized images.

nn.Sequential of stem, eight blocks and head, so that a pipeline stage is a run of them; floor 1.
"""

from torch import Tensor, nn

from trainer.config.errors import ConfigError

LEAST = 9  # pixels: after three strides of 2, BatchNorm needs more than one value per image


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is 1x1 where the shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.residual(x) + self.shortcut(x))


class ResNet18(nn.Sequential):
    """GWPF's ResNet18_Cifar10: 11,173,962 parameters for 10 classes; a 3x3 stem without pooling."""

    def __init__(self, classes: int = 10, in_shape: tuple[int, int, int] = (3, 32, 32)) -> None:
        channels, height, width = in_shape
        if min(height, width) < LEAST:
            raise ConfigError(
                "model.name",
                f"resnet18 needs images of {LEAST}x{LEAST} or more, not {height}x{width}; "
                "set data.resize=32",
            )
        super().__init__(
            nn.Conv2d(channels, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            Block(64, 64, 1),
            Block(64, 64, 1),
            Block(64, 128, 2),
            Block(128, 128, 1),
            Block(128, 256, 2),
            Block(256, 256, 1),
            Block(256, 512, 2),
            Block(512, 512, 1),
            nn.AdaptiveAvgPool2d(1),  # on 32x32 the published average over 4x4
            nn.Flatten(),
            nn.Linear(512, classes),
        )
