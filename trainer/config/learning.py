"""Settings of what is learned: model, optimizer, algorithm."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from trainer.config.base import Section, setting
from trainer.config.fit import LOCAL, UPDATES
from trainer.config.models import MODELS

# ---------------------------------------------------------------------------------------------
# model, optimizer


if TYPE_CHECKING:
    ModelName = str
else:  # one table names the networks; the schema and the messages still list them
    ModelName = Literal[tuple(MODELS)]


class Model(Section):
    """The network."""

    name: ModelName = setting(
        "digits-cnn",
        help="softmax: regression; digits-cnn: 8x8 digits; lenet: FedGA's cnn_cifar; mnist-cnn, "
        "resnet18, vgg11: GWPF's; fedavg-cnn: McMahan's; fedga-cnn, fedga-resnet: FedGA's; "
        "dropout-cnn: the homework's; cifar-resnet*, cifar-vgg*: Local SGD's; resnet50: "
        "torchvision's",
    )
    norm: Literal["batch", "group", "none"] | None = setting(
        None,
        help="of cifar-resnet* (batch; group, which brings SiLU for ReLU) and fedga-resnet (none; "
        "batch); empty: the first; other models have no choice",
    )
    groups: int = setting(8, help="groups of norm=group; a divisor of 16", ge=1)
    weights: str | None = setting(
        None,
        help="a .safetensors, .pt or .pth file with weights to start from; empty: drawn from the "
        "seed",
    )
    buffers: Literal["mean", "local"] = setting(
        "mean",
        help="BatchNorm statistics: averaged each round (their bytes count), or kept by clients",
    )
    precision: Literal["fp32", "bf16", "fp64"] = setting(
        "fp32",
        help="bf16 computes forward and backward under autocast, parameters stay fp32; fp64 is for "
        "comparisons to the last digit",
    )

    @field_validator("norm")
    @classmethod
    def _norm_is_a_choice_of_the_model(cls, norm: str | None, info: ValidationInfo) -> str | None:
        name = info.data.get("name", "")
        choices = MODELS[name].norms if name else ()
        if norm is None or not name or norm in choices:
            return norm
        if not choices:
            raise ValueError(f"{name} leaves no choice of normalisation: leave model.norm empty")
        raise ValueError(f"{name} has no norm={norm}: set model.norm to {' or '.join(choices)}")

    @field_validator("groups")
    @classmethod
    def _groups_divide_the_channels(cls, groups: int, info: ValidationInfo) -> int:
        if info.data.get("norm") == "group" and 16 % groups:
            raise ValueError(
                f"{groups} does not divide the 16 channels of the first layer: set model.groups to "
                "1, 2, 4, 8 or 16"
            )
        return groups

    @field_validator("weights")
    @classmethod
    def _weights_are_in_a_known_format(cls, weights: str | None) -> str | None:
        if weights is not None and not weights.endswith((".safetensors", ".pt", ".pth")):
            raise ValueError(
                f"{weights} is in no known format: give a .safetensors, .pt or .pth file"
            )
        return weights


class SGD(Section):
    """Stochastic gradient descent, torch.optim.SGD's semantics."""

    name: Literal["sgd"] = "sgd"
    lr: float = setting(0.05, help="local learning rate", gt=0)
    momentum: float = setting(0.0, help="momentum factor", ge=0, lt=1)
    nesterov: bool = setting(False, help="Nesterov momentum; needs momentum > 0")
    weight_decay: float = setting(0.0, help="L2 penalty factor", ge=0)
    decay_norm_and_bias: bool = setting(
        True, help="whether the penalty is also on biases and normalisation's parameters"
    )
    clip_norm: float | None = setting(
        None, help="scale each local gradient down to at most this L2 norm", gt=0
    )
    state: Literal["reset", "keep"] = setting(
        "reset", help="momentum at the start of a round: from zero, or what the client had"
    )
    warmup_rounds: int = setting(
        0, help="the learning rate rises step by step over these rounds", unit="rounds", ge=0
    )
    warmup_lr: float = setting(0.01, help="the learning rate that the rise begins at", gt=0)

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "SGD":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum: set optimizer.momentum above 0")
        return self


# ---------------------------------------------------------------------------------------------
# algorithm, schedule


class Server(Section):
    """What algorithms share whose server steps along the mean update of the clients."""

    weighting: Literal["samples", "uniform"] = setting(
        "samples", help="a client's weight in the mean: its number of samples, or 1"
    )
    server_lr: float = setting(1.0, help="step of the server along the mean update", gt=0)
    server_momentum: float = setting(0.0, help="momentum of the server", ge=0, lt=1)
    server_nesterov: bool = setting(False, help="Nesterov momentum at the server")

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "Server":
        if self.server_nesterov and self.server_momentum == 0:
            raise ValueError("server_nesterov needs algorithm.server_momentum above 0")
        return self


class FedAvg(Server):
    """McMahan et al. 2017; with server momentum, FedAvgM (Hsu et al. 2019)."""

    name: Literal["fedavg"] = "fedavg"
    implementation: ClassVar[str] = "trainer.algorithms.fedavg:FedAvg"


class FedProx(Server):
    """Li et al. 2020: local losses with a pull back to the agreed model."""

    name: Literal["fedprox"] = "fedprox"
    implementation: ClassVar[str] = "trainer.algorithms.fedprox:FedProx"
    prox: float = setting(0.01, help="mu; each local gradient grows by mu (y - x)", ge=0)


class FedGA(Server):
    """Dandi, Barba, Jaggi 2022: clients start displaced, so that their gradients align."""

    name: Literal["fedga"] = "fedga"
    implementation: ClassVar[str] = "trainer.algorithms.fedga:FedGA"
    beta: float = setting(0.1, help="displacement along G_i - G; 0 is FedAvg", ge=0)
    scale_beta: bool = setting(
        True, help="beta falls with the learning rate, by each phase's lr_scale"
    )
    gradient_samples: int | None = setting(
        None, help="cap on the samples of a client's whole gradient", unit="samples", ge=1
    )


class Scaffold(Server):
    """Karimireddy et al. 2020: control variates correct each local gradient."""

    name: Literal["scaffold"] = "scaffold"
    implementation: ClassVar[str] = "trainer.algorithms.scaffold:scaffold"
    controls: Literal["fresh", "option-1", "option-2"] = setting(
        "option-2",
        help="fresh: the whole gradients of this round's clients, no state; option-1 and option-2: "
        "the paper's, each client keeps its own (whole gradient, or mean local step)",
    )
    gradient_samples: int | None = setting(
        None, help="cap on the samples of a client's whole gradient", unit="samples", ge=1
    )


class FedSGD(Section):
    """Large-batch SGD: clients send gradients, the server steps with the optimizer's settings."""

    name: Literal["fedsgd"] = "fedsgd"
    implementation: ClassVar[str] = "trainer.algorithms.fedsgd:FedSGD"
    lacks: ClassVar[frozenset[str]] = frozenset({LOCAL, UPDATES})
    weighting: Literal["samples", "uniform"] = setting(
        "samples", help="a client's weight in the mean: its number of samples, or 1"
    )


Algorithm = Annotated[FedAvg | FedProx | FedGA | Scaffold | FedSGD, Field(discriminator="name")]
