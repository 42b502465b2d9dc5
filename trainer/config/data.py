"""Settings of the data: the samples, their partition across clients, and the order of drawing.

Reading and partitioning are the business of trainer/data.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from trainer.config.base import LARGE, Only, Section, setting


class IID(Section):
    """Clients with the same distribution: a random split into equal parts."""

    name: Literal["iid"] = "iid"


class Dirichlet(Section):
    """Label skew by Dirichlet draws: the smaller alpha, the more the clients differ."""

    name: Literal["dirichlet"] = "dirichlet"
    alpha: float = setting(
        1.0, help="concentration; 0.1 is strong skew, 100 nearly IID", gt=0, le=1e9
    )
    over: Literal["clients", "classes"] = setting(
        "clients",
        help="clients: one draw for each class divides it among the clients (GWPF; unequal "
        "sizes); classes: one draw for each client is its mix of classes (equal sizes)",
    )


class Shards(Section):
    """Samples sorted by label and dealt in shards (McMahan et al. 2017)."""

    name: Literal["shards"] = "shards"
    per_client: int = setting(
        2, help="shards that each client receives", unit="shards", ge=1, le=1_000_000
    )
    balance: bool = setting(
        False, help="drop samples at random until every class has as many as the rarest"
    )


class PercentageIID(Section):
    """A share of the data dealt at random, and the rest sorted by label (FedGA, SCAFFOLD)."""

    name: Literal["percentage-iid"] = "percentage-iid"
    share: float = setting(
        1.0, help="share dealt at random, 0 to 1; -1 gives every client all the data", ge=-1, le=1
    )

    @model_validator(mode="after")
    def _share_or_everything(self) -> "PercentageIID":
        if -1 < self.share < 0:
            raise ValueError("share must be 0 to 1, or -1 to give every client all the data")
        return self


class Shared(Section):
    """Samples shared by all clients: each pass over them is dealt again (Local SGD)."""

    name: Literal["shared"] = "shared"


Partition = Annotated[
    IID | Dirichlet | Shards | PercentageIID | Shared, Field(discriminator="name")
]


class Data(Section):
    """The samples, and their partition across clients."""

    effects: ClassVar[dict[str, Only]] = {
        "path": Only("name", but=("digits",), remedy="npz"),
        "threads": Only("name", ("imagenet",)),
    }
    name: Literal[
        "digits",
        "mnist",
        "emnist",
        "emnist-digits",
        "cifar10",
        "cifar100",
        "npz",
        "folder",
        "imagenet",
    ] = setting(
        "digits",
        help="digits ships with scikit-learn and needs no network; mnist, emnist (balanced), "
        "emnist-digits, cifar10 and cifar100 are torchvision's; npz and folder are your own data "
        "at data.path; imagenet: JPEG files in train/ and val/ of data.path, one folder per class, "
        "decoded when they are needed",
    )
    path: str | None = setting(
        None,
        help="a Keras-style .npz file (x_train, y_train, x_test, y_test), an image folder with "
        "train/ and test/, or torchvision's download folder (default: the user's cache)",
        learned=False,
    )
    resize: int | None = setting(
        None,
        help="scale images to this height and width; imagenet: side of the crops, 224 if empty",
        unit="pixels",
        ge=1,
        le=8192,
    )
    augment: bool | None = setting(
        None, help="random crop and flip of training images; empty: as is usual for the data set"
    )
    threads: int | None = setting(
        None,
        help="threads of each rank that decode images ahead of the training step (imagenet); "
        "empty: the cores divided by the ranks of the machine; in a pod: its CPU limit",
        unit="threads",
        ge=1,
        le=1024,
        learned=False,
    )
    mean: tuple[Annotated[float, Field(ge=-LARGE, le=LARGE)], ...] | None = setting(
        None, help="per-channel mean, in units of full scale", max_length=4
    )
    std: tuple[Annotated[float, Field(gt=0, le=LARGE)], ...] | None = setting(
        None, help="per-channel standard deviation, in units of full scale", max_length=4
    )
    sampling: Literal["reshuffle", "fixed", "replacement"] = setting(
        "reshuffle",
        help="reshuffle: a new order in each pass; fixed: the same order in each pass; "
        "replacement: every sample is drawn independently, with replacement",
    )
    restart: bool = setting(
        False, help="a client starts a new pass in each round; off: it continues where it stopped"
    )
    holdout: float = setting(
        0.0, help="share of its samples that a client never trains on", ge=0, lt=1
    )
    label_noise: float = setting(
        0.0,
        help="p: probability that a label is replaced by another class at random, drawn again at "
        "each visit",
        ge=0,
        le=1,
    )
    partition: Partition = setting(IID(), help="partition of the samples across clients")

    @model_validator(mode="after")
    def _own_data_has_a_path(self) -> "Data":
        if self.name in ("npz", "folder", "imagenet") and self.path is None:
            raise ValueError(f"name {self.name} needs path; set data.path to the file or folder")
        if self.name == "folder" and self.resize is None:
            raise ValueError(
                "name folder needs resize; set data.resize to the images' side in pixels"
            )
        return self
