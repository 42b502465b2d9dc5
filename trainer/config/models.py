"""The networks by name: the one table that settings, error messages and the trainer read.

It holds import paths only; the networks themselves are in trainer/models.
"""

from dataclasses import dataclass, field
from typing import Any

from trainer.config.parts import resolve


@dataclass(frozen=True)
class Network:
    """A class by import path, its arguments, and the norms that it offers (default first).

    takes: the kind of samples that it is for (trainer/config/data.py).
    """

    path: str
    arguments: dict[str, Any] = field(default_factory=dict)
    norms: tuple[str, ...] = ()
    takes: str = "images"

    def __call__(self, **arguments: Any) -> Any:
        """Create the network.

        Arguments include `classes` and `in_shape` (C, H, W) if it is for images, or `vocabulary`,
        the number of tokens, if it is for text.
        """
        return resolve(self.path)(**self.arguments, **arguments)


CIFAR_NORMS = ("batch", "group")

MODELS = {
    "softmax": Network("trainer.models.linear:Softmax"),
    "digits-cnn": Network("trainer.models.cnn:DigitsCNN"),
    "lenet": Network("trainer.models.cnn:LeNet"),
    "mnist-cnn": Network("trainer.models.cnn:MnistCNN"),
    "fedavg-cnn": Network("trainer.models.cnn:FedAvgCNN"),
    "fedga-cnn": Network("trainer.models.cnn:FedGACNN"),
    "dropout-cnn": Network("trainer.models.cnn:DropoutCNN"),
    "fedga-resnet": Network("trainer.models.fedga_resnet:FedGAResNet", norms=("none", "batch")),
    "resnet18": Network("trainer.models.resnet:ResNet18"),
    "vgg11": Network("trainer.models.vgg:VGG11"),
    **{
        f"cifar-resnet{depth}": Network(
            "trainer.models.cifar_resnet:CifarResNet", {"depth": depth}, CIFAR_NORMS
        )
        for depth in (20, 32, 44, 56, 110, 1202)
    },
    **{
        f"cifar-vgg{depth}": Network("trainer.models.vgg:CifarVGG", {"depth": depth})
        for depth in (11, 13, 16, 19)
    },
    "resnet50": Network("trainer.models.resnet:ResNet50"),
    "gwpf-transformer": Network("trainer.models.transformer:Transformer", takes="text"),
    "transformer-tiny": Network(
        "trainer.models.transformer:Transformer", {"width": 64, "hidden": 64}, takes="text"
    ),
    "llama-26m": Network("trainer.models.llama:Llama", takes="text"),
    "llama-tiny": Network(
        "trainer.models.llama:Llama", {"width": 64, "heads": 4, "blocks": 2}, takes="text"
    ),
}
