"""FedGA's residual network, whose blocks hold one convolution each: fedga-resnet.

He et al.'s networks are in cifar_resnet.py and resnet.py. It is an nn.Sequential of stem, blocks,
transitions and head, so a pipeline stage is a contiguous part of it. Layer 1.
"""

from torch import Tensor, nn

from trainer.models import fit
from trainer.models.norm import Norm, layers

BLOCKS = 4  # of each width


class Block(nn.Module):
    """One 3x3 convolution, with ReLU before and after the input is added."""

    def __init__(self, width: int, norm: Norm) -> None:
        super().__init__()
        self.residual = nn.Sequential(*_convolution(width, width, 1, norm), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.residual(x) + x)


class FedGAResNet(nn.Sequential):
    """FedGA's "resnet18", which has 21 layers: 14,088,906 parameters for 10 classes.

    By default nothing is normalised; with BatchNorm it has 14,098,506 parameters. The first layer
    of each width after 64 is a convolution of its own, with stride 2 and without ReLU.
    """

    def __init__(
        self,
        classes: int = 10,
        in_shape: tuple[int, int, int] = (3, 32, 32),
        *,
        norm: Norm = "none",
    ) -> None:
        channels, _, _ = in_shape
        # After three strides of 2, BatchNorm needs more than one value per image.
        fit.at_least("fedga-resnet", in_shape, 9)
        stages: list[nn.Module] = [*_convolution(channels, 64, 1, norm), nn.ReLU()]
        stages += [Block(64, norm) for _ in range(BLOCKS)]
        for width in (128, 256, 512):
            stages += _convolution(width // 2, width, 2, norm)
            stages += [Block(width, norm) for _ in range(BLOCKS)]
        super().__init__(
            *stages,
            nn.AdaptiveAvgPool2d(1),  # on 32x32 the published average over 4x4
            nn.Flatten(),
            nn.Linear(512, classes),
        )


def _convolution(before: int, after: int, stride: int, norm: Norm) -> list[nn.Module]:
    return [
        nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
        *layers(norm, after),
    ]
