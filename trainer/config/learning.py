"""Settings of what is learned: model and algorithm.

The classes that implement them are in trainer/models and trainer/algorithms.
"""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from trainer.config.base import LARGE, MANY, Only, Section, setting
from trainer.config.fit import APART, LATE, LOCAL, UPDATES
from trainer.config.models import MODELS
from trainer.config.optimizers import ServerOptimizer, ServerSGD

# ---------------------------------------------------------------------------------------------
# model


if TYPE_CHECKING:
    ModelName = str
else:  # one table names the networks; from it the schema and the messages list them
    ModelName = Literal[tuple(MODELS)]


class Model(Section):
    """The network."""

    effects: ClassVar[dict[str, Only]] = {"groups": Only("norm", ("group",))}
    name: ModelName = setting(
        "digits-cnn",
        help="softmax: softmax regression; digits-cnn: for 8x8 digits; lenet: FedGA's cnn_cifar; "
        "mnist-cnn, resnet18, vgg11: GWPF's; fedavg-cnn: McMahan's; fedga-cnn, fedga-resnet: "
        "FedGA's; dropout-cnn: the homework's; cifar-resnet*, cifar-vgg*: Local SGD's; resnet50: "
        "torchvision's. For text: gwpf-transformer; llama-26m: a decoder like LLaMA's; "
        "transformer-tiny, llama-tiny: small versions of both",
        fixed=True,
    )
    norm: Literal["batch", "group", "none"] | None = setting(
        None,
        help="normalisation layers. cifar-resnet*: batch, or group (with SiLU instead of ReLU); "
        "fedga-resnet: none or batch; empty: the first of these; other models have no choice",
        fixed=True,
    )
    groups: int = setting(8, help="number of groups for norm=group; a divisor of 16", ge=1, le=16)
    weights: str | None = setting(
        None,
        help="file with initial weights (.safetensors, .pt or .pth); empty: drawn from the seed",
    )
    buffers: Literal["mean", "local"] = setting(
        "mean",
        help="BatchNorm statistics. mean: averaged each round (their bytes count); local: each "
        "client keeps its own",
    )
    precision: Literal["fp32", "bf16", "fp64"] = setting(
        "fp32",
        help="bf16: forward and backward pass under autocast, with fp32 parameters; fp64: for "
        "exact comparisons",
    )

    @field_validator("norm")
    @classmethod
    def _norm_is_a_choice_of_the_model(cls, norm: str | None, info: ValidationInfo) -> str | None:
        name = info.data.get("name", "")
        choices = MODELS[name].norms if name else ()
        if norm is None or not name or norm in choices:
            return norm
        if not choices:
            raise ValueError(f"{name} has no choice of normalisation; leave model.norm empty")
        raise ValueError(f"{name} has no norm={norm}; set model.norm to {' or '.join(choices)}")

    @field_validator("groups")
    @classmethod
    def _groups_divide_the_channels(cls, groups: int, info: ValidationInfo) -> int:
        if info.data.get("norm") == "group" and 16 % groups:
            raise ValueError(
                f"{groups} does not divide the 16 channels of the first layer; set model.groups to "
                "1, 2, 4, 8 or 16"
            )
        return groups

    @field_validator("weights")
    @classmethod
    def _weights_are_in_a_known_format(cls, weights: str | None) -> str | None:
        if weights is not None and not weights.endswith((".safetensors", ".pt", ".pth")):
            raise ValueError(
                f"{weights} has an unknown format; use a .safetensors, .pt or .pth file"
            )
        return weights


# ---------------------------------------------------------------------------------------------
# algorithm


class Server(Section):
    """Settings shared by algorithms whose server steps along the clients' mean update."""

    weighting: Literal["samples", "uniform"] = setting(
        "samples", help="a client's weight in the mean: its number of samples, or 1"
    )
    server: ServerOptimizer = setting(
        ServerSGD(),
        help="the server's optimizer, which steps along the clients' mean update",
        fixed=True,
    )


class FedAvg(Server):
    """McMahan et al. 2017; FedAvgM (Hsu et al. 2019) and FedOpt by the server's optimizer."""

    name: Literal["fedavg"] = "fedavg"
    implementation: ClassVar[str] = "trainer.algorithms.fedavg:FedAvg"


class FedProx(Server):
    """Li et al. 2020: a proximal term in the local loss pulls back to the agreed model."""

    name: Literal["fedprox"] = "fedprox"
    implementation: ClassVar[str] = "trainer.algorithms.fedprox:FedProx"
    prox: float = setting(0.01, help="mu: adds mu (y - x) to each local gradient", ge=0, le=LARGE)


class FedGA(Server):
    """Dandi, Barba, Jaggi 2022: clients start displaced, so that their gradients align."""

    lacks: ClassVar[frozenset[str]] = frozenset({APART, LATE})
    name: Literal["fedga"] = "fedga"
    implementation: ClassVar[str] = "trainer.algorithms.fedga:FedGA"
    beta: float = setting(
        0.1, help="factor of the displacement along G_i - G; 0 is FedAvg", ge=0, le=LARGE
    )
    scale_beta: bool = setting(
        True, help="scale beta with the learning rate, by the schedule's factor on it"
    )
    gradient_samples: int | None = setting(
        None,
        help="maximum samples in a client's full gradient, rounded up to full batches; empty: all",
        unit="samples",
        ge=1,
        le=MANY,
    )


class Scaffold(Server):
    """Karimireddy et al. 2020: control variates correct each local gradient."""

    lacks: ClassVar[frozenset[str]] = frozenset({APART, LATE})
    name: Literal["scaffold"] = "scaffold"
    implementation: ClassVar[str] = "trainer.algorithms.scaffold:scaffold"
    effects: ClassVar[dict[str, Only]] = {
        "gradient_samples": Only("controls", ("fresh", "option-1"))
    }
    controls: Literal["fresh", "option-1", "option-2"] = setting(
        "option-2",
        help="fresh: the full gradients of this round's clients, without state; option-1 and "
        "option-2: the paper's, where each client keeps its own control (option-1: its full "
        "gradient; option-2: the mean of its local gradients)",
        fixed=True,
    )
    gradient_samples: int | None = setting(
        None,
        help="maximum samples in a client's full gradient, rounded up to full batches; empty: all",
        unit="samples",
        ge=1,
        le=MANY,
    )


class FedSGD(Section):
    """Large-batch training: clients send gradients, the server takes the step of `optimizer`."""

    name: Literal["fedsgd"] = "fedsgd"
    implementation: ClassVar[str] = "trainer.algorithms.fedsgd:FedSGD"
    lacks: ClassVar[frozenset[str]] = frozenset({LOCAL, UPDATES})
    weighting: Literal["samples", "uniform"] = setting(
        "samples", help="a client's weight in the mean: its number of samples, or 1"
    )


Algorithm = Annotated[FedAvg | FedProx | FedGA | Scaffold | FedSGD, Field(discriminator="name")]
