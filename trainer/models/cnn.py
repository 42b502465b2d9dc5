"""The small convolutional networks, for 8x8 digits and for MNIST-sized images.

Deeper networks are in modules of their own. All are an nn.Sequential of their layers, so a pipeline
stage is a contiguous part of one. Layer 1.
"""

from torch import nn

from trainer.models import fit

SMALLER = ", or choose model.name=digits-cnn"


class DigitsCNN(nn.Sequential):
    """For scikit-learn's 1x8x8 digits: 6,090 parameters."""

    def __init__(self, classes: int = 10, in_shape: tuple[int, int, int] = (1, 8, 8)) -> None:
        channels, height, width = in_shape
        fit.at_least("digits-cnn", in_shape, 4)
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
        fit.at_least("lenet", in_shape, 16, otherwise=SMALLER)
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
    """GWPF's CNN_Mnist: 582,026 parameters on 1x28x28; pooling comes before ReLU."""

    def __init__(self, classes: int = 10, in_shape: tuple[int, int, int] = (1, 28, 28)) -> None:
        channels, height, width = in_shape
        fit.at_least("mnist-cnn", in_shape, 16, otherwise=SMALLER)
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


class FedAvgCNN(nn.Sequential):
    """McMahan's MNIST network as Flower's baseline pads it: 1,663,370 parameters on 1x28x28.

    Convolution and pooling both pad by one, so that each pair halves a side: 28, 14, 7.
    """

    def __init__(self, classes: int = 10, in_shape: tuple[int, int, int] = (1, 28, 28)) -> None:
        channels, height, width = in_shape
        fit.at_least("fedavg-cnn", in_shape, 6, otherwise=SMALLER)
        super().__init__(
            nn.Conv2d(channels, 32, 5, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2, padding=1),
            nn.Conv2d(32, 64, 5, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2, padding=1),
            nn.Flatten(),
            nn.Linear(64 * (height // 4) * (width // 4), 512),
            nn.ReLU(),
            nn.Linear(512, classes),
        )


class FedGACNN(nn.Sequential):
    """FedGA's cnn_mnist: 62,346 parameters on 1x28x28, 100,271 for 47 classes; no hidden layer."""

    def __init__(self, classes: int = 10, in_shape: tuple[int, int, int] = (1, 28, 28)) -> None:
        channels, height, width = in_shape
        fit.at_least("fedga-cnn", in_shape, 16, otherwise=SMALLER)
        super().__init__(
            nn.Conv2d(channels, 32, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * _side(height) * _side(width), classes),
        )


class DropoutCNN(nn.Sequential):
    """DDL25's MnistCnn: 1,199,882 parameters on 1x28x28.

    The original ends in log_softmax and is trained with NLL. This one returns logits, as all
    networks here do: cross-entropy combines log_softmax and NLL, so losses and gradients agree.
    """

    def __init__(self, classes: int = 10, in_shape: tuple[int, int, int] = (1, 28, 28)) -> None:
        channels, height, width = in_shape
        fit.at_least("dropout-cnn", in_shape, 6, otherwise=SMALLER)
        super().__init__(
            nn.Conv2d(channels, 32, 3),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.25),
            nn.Flatten(),
            nn.Linear(64 * ((height - 4) // 2) * ((width - 4) // 2), 128),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(128, classes),
        )


def _side(pixels: int) -> int:
    """Return the side that two rounds of 5x5 convolution and pooling leave."""
    return ((pixels - 4) // 2 - 4) // 2
