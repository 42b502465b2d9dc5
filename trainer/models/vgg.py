"""Owns the VGG network for EMNIST scaled to 32x32.

nn.Sequential of its layers, so that a pipeline stage is a run of them; floor 1.
"""

from torch import nn

from trainer.config.errors import ConfigError

POOL = 0
WIDTHS = (32, POOL, 64, POOL, 128, 128, POOL, 128, 256, POOL, 256, 256, POOL)
SIDE = 32  # pixels: five poolings leave one


class VGG11(nn.Sequential):
    """GWPF's VGG11_EMNIST: 19,892,207 parameters for 47 classes, nine tenths in the classifier."""

    def __init__(self, classes: int = 47, in_shape: tuple[int, int, int] = (1, 32, 32)) -> None:
        channels, height, width = in_shape
        if (height, width) != (SIDE, SIDE):
            raise ConfigError(
                "model.name",
                f"vgg11 needs images of {SIDE}x{SIDE}, not {height}x{width}; "
                f"set data.resize={SIDE}",
            )
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
