"""The residual networks with a 1x1 convolution in shortcuts that change shape: resnet18, resnet50.

Those with shortcuts without parameters are in cifar_resnet.py. Each is an nn.Sequential of stem,
blocks and head, so a pipeline stage is a contiguous part of it. Layer 1.
"""

from torch import Tensor, nn

from trainer.models import fit


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution if the shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.shortcut = _shortcut(before, after, stride)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.residual(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, a quarter as wide inside, and the same kind of shortcut.

    The stride is in the 3x3 convolution, as in torchvision; He et al. put it in the first 1x1.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        inside = after // 4
        self.residual = nn.Sequential(
            nn.Conv2d(before, inside, 1, bias=False),
            nn.BatchNorm2d(inside),
            nn.ReLU(),
            nn.Conv2d(inside, inside, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(inside),
            nn.ReLU(),
            nn.Conv2d(inside, after, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.shortcut = _shortcut(before, after, stride)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.residual(x) + self.shortcut(x))


class ResNet18(nn.Sequential):
    """GWPF's ResNet18_Cifar10: 11,173,962 parameters for 10 classes; a 3x3 stem without pooling."""

    def __init__(self, classes: int = 10, in_shape: tuple[int, int, int] = (3, 32, 32)) -> None:
        channels, _, _ = in_shape
        # After three strides of 2, BatchNorm needs more than one value per image.
        fit.at_least("resnet18", in_shape, 9)
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


class ResNet50(nn.Sequential):
    """torchvision's resnet50, layer for layer: 25,557,032 parameters for 1,000 classes.

    It is written out, because a pipeline needs one sequence of blocks and layer 1 does not import
    torchvision; a test compares the two. On 32x32 one value per channel and image is left before
    the head, so every batch, also a partial last one, needs at least two images: a single value
    has no variance for BatchNorm.
    """

    def __init__(self, classes: int = 1000, in_shape: tuple[int, int, int] = (3, 224, 224)) -> None:
        channels, _, _ = in_shape
        fit.at_least("resnet50", in_shape, 32)
        blocks: list[nn.Module] = []
        before = 64
        for after, length, stride in ((256, 3, 1), (512, 4, 2), (1024, 6, 2), (2048, 3, 2)):
            blocks.append(Bottleneck(before, after, stride))
            blocks += [Bottleneck(after, after, 1) for _ in range(length - 1)]
            before = after
        super().__init__(
            nn.Conv2d(channels, 64, 7, 2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, padding=1),
            *blocks,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(before, classes),
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def _shortcut(before: int, after: int, stride: int) -> nn.Sequential:
    if stride == 1 and before == after:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
