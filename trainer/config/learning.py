"""Owns the settings of what is learned: data, partition, model, optimizer, algorithm, schedule."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainer.config.base import Section, setting

# ---------------------------------------------------------------------------------------------
# data


class IID(Section):
    """Every client draws from the same distribution: a random split into equal parts."""

    name: Literal["iid"] = "iid"


class Dirichlet(Section):
    """Label skew by Dirichlet draws; the smaller alpha, the more the clients differ."""

    name: Literal["dirichlet"] = "dirichlet"
    alpha: float = setting(1.0, help="concentration; 0.1 is strong skew, 100 nearly IID", gt=0)
    over: Literal["clients", "classes"] = setting(
        "clients",
        help="clients: each class is cut among the clients by one draw (GWPF; unequal sizes); "
        "classes: each client draws its class mix (equal sizes)",
    )


class Shards(Section):
    """Samples sorted by label and dealt in shards (McMahan et al. 2017)."""

    name: Literal["shards"] = "shards"
    per_client: int = setting(2, help="shards that each client receives", ge=1)


class PercentageIID(Section):
    """A share of the data is dealt at random, the rest sorted by label (FedGA, SCAFFOLD)."""

    name: Literal["percentage-iid"] = "percentage-iid"
    share: float = setting(
        1.0, help="share dealt at random, 0 to 1; -1 gives every client all the data", ge=-1, le=1
    )

    @model_validator(mode="after")
    def _share_or_everything(self) -> "PercentageIID":
        if -1 < self.share < 0:
            raise ValueError("share must be between 0 and 1, or -1 for all data everywhere")
        return self


Partition = Annotated[IID | Dirichlet | Shards | PercentageIID, Field(discriminator="name")]


class Data(Section):
    """The samples, and how they are spread over the clients."""

    name: Literal[
        "digits", "mnist", "emnist", "emnist-digits", "cifar10", "cifar100", "npz", "folder"
    ] = setting(
        "digits",
        help="digits ships with scikit-learn and needs no network; mnist, emnist (balanced), "
        "emnist-digits, cifar10 and cifar100 are torchvision's; npz and folder are yours, by "
        "data.path",
    )
    path: str | None = setting(
        None,
        help="a Keras-style .npz file (x_train, y_train, x_test, y_test), an image folder with "
        "train/ and test/, or torchvision's download folder (default: the user's cache)",
    )
    resize: int | None = setting(
        None, help="scale images to this height and width", unit="pixels", ge=1
    )
    augment: bool | None = setting(
        None, help="random crop and flip of training images; default: the data set's custom"
    )
    mean: tuple[float, ...] | None = setting(None, help="per-channel mean, in units of full scale")
    std: tuple[float, ...] | None = setting(None, help="per-channel standard deviation, likewise")
    reshuffle: bool = setting(
        True, help="a new order at each pass; off: every pass in the same order"
    )
    partition: Partition = setting(IID(), help="how samples are spread over clients")

    @model_validator(mode="after")
    def _own_data_has_a_path(self) -> "Data":
        if self.name in ("npz", "folder") and self.path is None:
            raise ValueError(f"name {self.name} needs path: set data.path to the file or folder")
        if self.name == "folder" and self.resize is None:
            raise ValueError(
                "name folder needs resize: set data.resize to the images' side in pixels"
            )
        return self


# ---------------------------------------------------------------------------------------------
# model, optimizer


class Model(Section):
    """The network."""

    name: Literal["digits-cnn", "lenet", "mnist-cnn", "resnet18", "vgg11"] = setting(
        "digits-cnn",
        help="digits-cnn: 8x8 digits; lenet: 44,426 parameters, 28x28; mnist-cnn, resnet18 and "
        "vgg11: GWPF's CNN_Mnist, ResNet18_Cifar10 and VGG11_EMNIST",
    )
    buffers: Literal["mean", "local"] = setting(
        "mean",
        help="BatchNorm statistics: averaged each round (their bytes count), or kept by clients",
    )
    precision: Literal["fp32", "bf16"] = setting(
        "fp32", help="bf16 computes forward and backward under autocast; parameters stay fp32"
    )


class SGD(Section):
    """Stochastic gradient descent, torch.optim.SGD's semantics."""

    name: Literal["sgd"] = "sgd"
    lr: float = setting(0.05, help="local learning rate", gt=0)
    momentum: float = setting(0.0, help="momentum factor", ge=0, lt=1)
    nesterov: bool = setting(False, help="Nesterov momentum; needs momentum > 0")
    weight_decay: float = setting(0.0, help="L2 penalty factor", ge=0)
    clip_norm: float | None = setting(
        None, help="scale each local gradient down to at most this L2 norm", gt=0
    )
    state: Literal["reset", "keep"] = setting(
        "reset", help="momentum at the start of a round: from zero, or what the client had"
    )

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


class FedProx(Server):
    """Li et al. 2020: local losses with a pull back to the agreed model."""

    name: Literal["fedprox"] = "fedprox"
    prox: float = setting(0.01, help="mu; each local gradient grows by mu (y - x)", ge=0)


class FedGA(Server):
    """Dandi, Barba, Jaggi 2022: clients start displaced, so that their gradients align."""

    name: Literal["fedga"] = "fedga"
    beta: float = setting(0.1, help="displacement along G_i - G; 0 is FedAvg", ge=0)
    gradient_samples: int | None = setting(
        None, help="cap on the samples of a client's whole gradient", unit="samples", ge=1
    )


class Scaffold(Server):
    """Karimireddy et al. 2020: control variates correct each local gradient."""

    name: Literal["scaffold"] = "scaffold"
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
    weighting: Literal["samples", "uniform"] = setting(
        "samples", help="a client's weight in the mean: its number of samples, or 1"
    )


Algorithm = Annotated[FedAvg | FedProx | FedGA | Scaffold | FedSGD, Field(discriminator="name")]


class Phase(Section):
    """A stretch of rounds with the same amount of local work."""

    rounds: int | None = setting(
        None, help="length; empty in the last phase: until the end", unit="rounds", ge=1
    )
    steps: int | None = setting(None, help="local steps per round (H)", unit="steps", ge=1)
    epochs: int | None = setting(
        None, help="instead of steps: passes over the client's data per round", unit="passes", ge=1
    )

    @model_validator(mode="after")
    def _one_measure_of_work(self) -> "Phase":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        return self


class Schedule(Section):
    """When clients synchronise: Local SGD is one phase, post-local SGD is two."""

    batch_size: int = setting(32, help="samples per local step", unit="samples", ge=1)
    phases: tuple[Phase, ...] = setting(
        (Phase(steps=5),), help="one after the other; the last one may be open-ended", min_length=1
    )

    @model_validator(mode="after")
    def _only_the_last_is_open(self) -> "Schedule":
        if any(phase.rounds is None for phase in self.phases[:-1]):
            raise ValueError("phases: every phase but the last needs rounds")
        return self

    def phase(self, round_number: int) -> Phase:
        """The phase that round `round_number` (from 1) belongs to; the last one goes on."""
        for phase in self.phases[:-1]:
            assert phase.rounds is not None
            if round_number <= phase.rounds:
                return phase
            round_number -= phase.rounds
        return self.phases[-1]
