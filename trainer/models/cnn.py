"""Owns the small convolutional networks: for 8x8 digits, and for MNIST-sized images.

All are nn.Sequential of their layers, so that a pipeline stage is a run of them; floor 1.
"""

from torch import nn

from trainer.config.errors import ConfigError


class DigitsCNN(nn.Sequential):
    """For scikit-learn's 1x8x8 digits: 6,090 parameters."""

    def __init__(self, classes: int = 10, in_shape: tuple[int, int, int] = (1, 8, 8)) -> None:
        channels, height, width = in_shape
        _require("digits-cnn", in_shape, least=4)
        super().__init__(
            nn.Conv2d(channels, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * (height // 4) * (width // 4), classes),
        )


class LeNet(nn.Sequential):
    """LeNet-5 with ReLU and max-pooling: 44,426 parameters on 1x28x28, 62,006 on 3x32x32."""

    def __init__(self, classes: int = 10, in_shape: tuple[int, int, int] = (1, 28, 28)) -> None:
        channels, height, width = in_shape
        _require("lenet", in_shape, least=16)
        super().__init__(
            nn.Conv2d(channels, 6, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * _side(height) * _side(width), 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, classes),
        )


class MnistCNN(nn.Sequential):
    """GWPF's CNN_Mnist: 582,026 parameters on 1x28x28; pools before it rectifies."""

    def __init__(self, classes: int = 10, in_shape: tuple[int, int, int] = (1, 28, 28)) -> None:
        channels, height, width = in_shape
        _require("mnist-cnn", in_shape, least=16)
        super().__init__(
            nn.Conv2d(channels, 32, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(32, 64, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * _side(height) * _side(width), 512),
            nn.ReLU(),
            nn.Linear(512, classes),
        )


def _side(pixels: int) -> int:
    """What two rounds of 5x5 convolution and pooling leave of a side."""
    return ((pixels - 4) // 2 - 4) // 2


def _require(name: str, in_shape: tuple[int, int, int], *, least: int) -> None:
    _, height, width = in_shape
    if min(height, width) < least:
        raise ConfigError(
            "model.name",
            f"{name} needs images of {least}x{least} or more, not {height}x{width}; "
            f"set data.resize to at least {least}, or choose model.name=digits-cnn",
        )
