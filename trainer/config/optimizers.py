"""Settings of the clients' optimizers, which take the local steps, and of the server's.

The classes that implement them are in trainer/algorithms.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from trainer.config.base import LARGE, MANY, Only, Section, setting

# ---------------------------------------------------------------------------------------------
# at the clients


class Local(Section):
    """Settings that all of the clients' optimizers share."""

    effects: ClassVar[dict[str, Only]] = {
        "decay_norm_and_bias": Only("weight_decay", remedy="1e-4"),
        "warmup_lr": Only("warmup_rounds", remedy="5"),
    }
    lr: float = setting(0.05, help="local learning rate", gt=0, le=LARGE)
    weight_decay: float = setting(0.0, help="L2 penalty factor", ge=0, le=LARGE)
    decay_norm_and_bias: bool = setting(
        True, help="apply the weight decay to biases and normalisation parameters as well"
    )
    clip_norm: float | None = setting(
        None, help="scale each local gradient down to at most this L2 norm", gt=0, le=LARGE
    )
    state: Literal["reset", "keep"] = setting(
        "reset",
        help="the optimizer's state (momentum, moments) at the start of a round. reset: zero; "
        "keep: the client's own from its last round",
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


class SGD(Local):
    """Stochastic gradient descent with the semantics of torch.optim.SGD."""

    effects: ClassVar[dict[str, Only]] = Local.effects | {"state": Only("momentum", remedy="0.9")}
    name: Literal["sgd"] = "sgd"
    implementation: ClassVar[str] = "trainer.algorithms.sgd:LocalSGD"
    momentum: float = setting(0.0, help="momentum factor", ge=0, lt=1)
    nesterov: bool = setting(False, help="Nesterov momentum; needs momentum > 0")

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "SGD":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum; set optimizer.momentum above 0")
        return self


class Moments(Local):
    """Settings that Adam and AdamW share."""

    lr: float = setting(0.001, help="local learning rate", gt=0, le=LARGE)
    beta1: float = setting(0.9, help="decay of the mean of gradients", ge=0, lt=1)
    beta2: float = setting(0.999, help="decay of the mean of squared gradients", ge=0, lt=1)
    eps: float = setting(
        1e-8, help="added to the root of the mean of squared gradients", ge=1e-30, le=LARGE
    )
    warmup_lr: float = setting(
        1e-5, help="learning rate at the start of the warm-up", gt=0, le=LARGE
    )


class Adam(Moments):
    """Adam (Kingma, Ba 2015) with the semantics of torch.optim.Adam."""

    name: Literal["adam"] = "adam"
    implementation: ClassVar[str] = "trainer.algorithms.adam:LocalAdam"


class AdamW(Moments):
    """AdamW (Loshchilov, Hutter 2019) with the semantics of torch.optim.AdamW."""

    name: Literal["adamw"] = "adamw"
    implementation: ClassVar[str] = "trainer.algorithms.adam:LocalAdamW"
    weight_decay: float = setting(
        0.01, help="decoupled weight decay: a step takes lr times this off a value", ge=0, le=LARGE
    )


Optimizer = Annotated[SGD | Adam | AdamW, Field(discriminator="name")]

# ---------------------------------------------------------------------------------------------
# at the server


class ServerSGD(Section):
    """SGD along the clients' mean update: FedAvg by default, FedAvgM with momentum."""

    name: Literal["sgd"] = "sgd"
    implementation: ClassVar[str] = "trainer.algorithms.server:ServerSGD"
    lr: float = setting(1.0, help="server's step size along the mean update", gt=0, le=LARGE)
    momentum: float = setting(0.0, help="server's momentum factor", ge=0, lt=1)
    nesterov: bool = setting(
        False, help="Nesterov momentum at the server; needs algorithm.server.momentum > 0"
    )

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "ServerSGD":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum; set algorithm.server.momentum above 0")
        return self


class Adaptive(Section):
    """Settings that the adaptive optimizers of FedOpt share (Reddi et al. 2021)."""

    lr: float = setting(0.01, help="server's step size", gt=0, le=LARGE)
    beta1: float = setting(0.9, help="decay of the mean of updates", ge=0, lt=1)
    tau: float = setting(
        1e-3,
        help="added to the root of the squared updates, which start at its square; the smaller, "
        "the more adaptive",
        ge=1e-18,  # its square is a number in single precision; so it is at the other end
        le=1e18,
    )


class ServerAdam(Adaptive):
    """FedAdam."""

    name: Literal["adam"] = "adam"
    implementation: ClassVar[str] = "trainer.algorithms.server:ServerAdam"
    beta2: float = setting(0.99, help="decay of the mean of squared updates", ge=0, lt=1)


class ServerYogi(Adaptive):
    """FedYogi, whose mean of squared updates moves towards a new one by a share of that one."""

    name: Literal["yogi"] = "yogi"
    implementation: ClassVar[str] = "trainer.algorithms.server:ServerYogi"
    beta2: float = setting(0.99, help="decay of the mean of squared updates", ge=0, lt=1)


class ServerAdagrad(Adaptive):
    """FedAdagrad, which divides by the root of the sum of squared updates."""

    name: Literal["adagrad"] = "adagrad"
    implementation: ClassVar[str] = "trainer.algorithms.server:ServerAdagrad"
    beta1: float = setting(0.0, help="decay of the mean of updates", ge=0, lt=1)


ServerOptimizer = Annotated[
    ServerSGD | ServerAdam | ServerYogi | ServerAdagrad, Field(discriminator="name")
]
