"""Settings of what is learned: model, optimizer, algorithm.

The classes that implement them are in trainer/models and trainer/algorithms.
"""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from trainer.config.base import LARGE, MANY, Only, Section, setting
from trainer.config.fit import LOCAL, UPDATES
from trainer.config.models import MODELS

# ---------------------------------------------------------------------------------------------
# model, optimizer


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
        "torchvision's",
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


class SGD(Section):
    """Stochastic gradient descent with the semantics of torch.optim.SGD."""

    effects: ClassVar[dict[str, Only]] = {
        "decay_norm_and_bias": Only("weight_decay", remedy="1e-4"),
        "state": Only("momentum", remedy="0.9"),
        "warmup_lr": Only("warmup_rounds", remedy="5"),
    }
    name: Literal["sgd"] = "sgd"
    lr: float = setting(0.05, help="local learning rate", gt=0, le=LARGE)
    momentum: float = setting(0.0, help="momentum factor", ge=0, lt=1)
    nesterov: bool = setting(False, help="Nesterov momentum; needs momentum > 0")
    weight_decay: float = setting(0.0, help="L2 penalty factor", ge=0, le=LARGE)
    decay_norm_and_bias: bool = setting(
        True, help="apply the penalty to biases and normalisation parameters as well"
    )
    clip_norm: float | None = setting(
        None, help="scale each local gradient down to at most this L2 norm", gt=0, le=LARGE
    )
    state: Literal["reset", "keep"] = setting(
        "reset",
        help="momentum at the start of a round. reset: zero; keep: the client's own from its last "
        "round",
    )
    warmup_rounds: int = setting(
        0,
        help="rounds over which the learning rate rises, step by step",
        unit="rounds",
        ge=0,
        le=MANY,
    )
    warmup_lr: float = setting(
        0.01, help="learning rate at the start of the warm-up", gt=0, le=LARGE
    )

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "SGD":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum; set optimizer.momentum above 0")
        return self


# ---------------------------------------------------------------------------------------------
# algorithm, schedule


class Server(Section):
    """Settings shared by algorithms whose server steps along the clients' mean update."""

    weighting: Literal["samples", "uniform"] = setting(
        "samples", help="a client's weight in the mean: its number of samples, or 1"
    )
    server_lr: float = setting(1.0, help="server's step size along the mean update", gt=0, le=LARGE)
    server_momentum: float = setting(0.0, help="server's momentum factor", ge=0, lt=1)
    server_nesterov: bool = setting(
        False, help="Nesterov momentum at the server; needs server_momentum > 0"
    )

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "Server":
        if self.server_nesterov and self.server_momentum == 0:
            raise ValueError(
                "server_nesterov needs momentum; set algorithm.server_momentum above 0"
            )
        return self


class FedAvg(Server):
    """McMahan et al. 2017; with server momentum, FedAvgM (Hsu et al. 2019)."""

    name: Literal["fedavg"] = "fedavg"
    implementation: ClassVar[str] = "trainer.algorithms.fedavg:FedAvg"


class FedProx(Server):
    """Li et al. 2020: a proximal term in the local loss pulls back to the agreed model."""

    name: Literal["fedprox"] = "fedprox"
    implementation: ClassVar[str] = "trainer.algorithms.fedprox:FedProx"
    prox: float = setting(0.01, help="mu: adds mu (y - x) to each local gradient", ge=0, le=LARGE)


class FedGA(Server):
    """Dandi, Barba, Jaggi 2022: clients start displaced, so that their gradients align."""

    name: Literal["fedga"] = "fedga"
    implementation: ClassVar[str] = "trainer.algorithms.fedga:FedGA"
    beta: float = setting(
        0.1, help="factor of the displacement along G_i - G; 0 is FedAvg", ge=0, le=LARGE
    )
    scale_beta: bool = setting(
        True, help="scale beta with the learning rate, by each phase's lr_scale"
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
    """Large-batch SGD: clients send gradients, the server steps with the optimizer's settings."""

    name: Literal["fedsgd"] = "fedsgd"
    implementation: ClassVar[str] = "trainer.algorithms.fedsgd:FedSGD"
    lacks: ClassVar[frozenset[str]] = frozenset({LOCAL, UPDATES})
    weighting: Literal["samples", "uniform"] = setting(
        "samples", help="a client's weight in the mean: its number of samples, or 1"
    )


Algorithm = Annotated[FedAvg | FedProx | FedGA | Scaffold | FedSGD, Field(discriminator="name")]
