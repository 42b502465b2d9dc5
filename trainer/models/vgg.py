"""The VGG networks for 32x32 images: GWPF's for EMNIST, and Local SGD's for CIFAR.

Images of other sizes are rejected, not resized. Each is an nn.Sequential of its layers, so a
pipeline stage is a contiguous part of it. Layer 1.
"""

from torch import nn

from trainer.models import fit

POOL = 0
WIDTHS = (32, POOL, 64, POOL, 128, 128, POOL, 128, 256, POOL, 256, 256, POOL)
SIDE = 32  # pixels, of which five poolings leave one

# Simonyan and Zisserman 2015, table 1: number of convolutions before each pooling, by depth.
CONVOLUTIONS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


class VGG11(nn.Sequential):
    """GWPF's VGG11_EMNIST: 19,892,207 parameters for 47 classes, nine tenths in the classifier."""

    def __init__(self, classes: int = 47, in_shape: tuple[int, int, int] = (1, 32, 32)) -> None:
        channels, _, _ = in_shape
        fit.exactly("vgg11", in_shape, SIDE)
        layers: list[nn.Module] = []
        for width_after in WIDTHS:
            if width_after == POOL:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [
                nn.Conv2d(channels, width_after, 3, padding=1),
                nn.BatchNorm2d(width_after),
                nn.ReLU(),
            ]
            channels = width_after
        super().__init__(
            *layers,
            nn.Flatten(),
            nn.Linear(channels, 4096),
            nn.ReLU(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, classes),
        )


class CifarVGG(nn.Sequential):
    """VGG-`depth` with one linear layer: 14,719,818 parameters at depth 16, 10 classes.

    SiLU and average pooling are intentional, after Gu et al.: label noise needs a smooth loss.
    """

    def __init__(
        self, classes: int = 10, in_shape: tuple[int, int, int] = (3, 32, 32), *, depth: int
    ) -> None:
        channels, _, _ = in_shape
        fit.exactly(f"cifar-vgg{depth}", in_shape, SIDE)
        layers: list[nn.Module] = []
        for width, count in zip((64, 128, 256, 512, 512), CONVOLUTIONS[depth], strict=True):
            for _ in range(count):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.SiLU()]
                channels = width
            layers.append(nn.AvgPool2d(2))
        super().__init__(*layers, nn.Flatten(), nn.Linear(channels, classes))
        for layer in self:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
