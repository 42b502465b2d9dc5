"""Settings of the data: the samples, their partition across clients, and the order of drawing.

Reading and partitioning are the business of trainer/data.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from trainer.config.base import LARGE, Only, Section, setting

# What a data set consists of, and the task that learns from it.
IMAGES, TEXT = "images", "text"
TASKS = {IMAGES: "trainer.tasks.images:Images", TEXT: "trainer.tasks.tokens:Tokens"}
TEXTS = ("python-topics", "wikitext2", "text")  # the names of data sets that are text
UNDIVIDED = ("python-topics", "text")  # of these, those without a test text of their own


class Division(Section):
    """Base of the partitions, each of which declares what kinds of samples it can divide."""

    divides: ClassVar[tuple[str, ...]] = (IMAGES, TEXT)


class ByLabel(Division):
    """A partition that looks at the samples' labels."""

    divides: ClassVar[tuple[str, ...]] = (IMAGES,)


class InOrder(Division):
    """A partition that keeps neighbouring samples together."""

    divides: ClassVar[tuple[str, ...]] = (TEXT,)


class IID(Division):
    """Clients with the same distribution: a random split into equal parts."""

    name: Literal["iid"] = "iid"


class Dirichlet(ByLabel):
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


class Shards(ByLabel):
    """Samples sorted by label and dealt in shards (McMahan et al. 2017)."""

    name: Literal["shards"] = "shards"
    per_client: int = setting(
        2, help="shards that each client receives", unit="shards", ge=1, le=1_000_000
    )
    balance: bool = setting(
        False, help="drop samples at random until every class has as many as the rarest"
    )


class PercentageIID(ByLabel):
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


class Shared(Division):
    """Samples shared by all clients: each pass over them is dealt again (Local SGD)."""

    name: Literal["shared"] = "shared"


class Contiguous(InOrder):
    """A text cut into one piece for each client, all of the same length."""

    name: Literal["contiguous"] = "contiguous"


class Documents(InOrder):
    """Whole documents, dealt in random order to the client that has the fewest tokens so far."""

    name: Literal["documents"] = "documents"


class Lengths(InOrder):
    """A text cut into pieces of the unequal lengths that GWPF draws; unlike there, none overlap."""

    name: Literal["lengths"] = "lengths"


Partition = Annotated[
    IID | Dirichlet | Shards | PercentageIID | Shared | Contiguous | Documents | Lengths,
    Field(discriminator="name"),
]


class Words(Section):
    """Words between blanks, and <eos> at the end of each line, as in GWPF's WikiText-2."""

    name: Literal["words"] = "words"
    size: int | None = setting(
        None,
        help="keep the most frequent words of the training text, this many with <eos> and <unk>, "
        "which stands for all others; empty: every word, of the validation and test text as well",
        unit="tokens",
        ge=3,
        le=1_000_000,
    )


class SentencePiece(Section):
    """Parts of words by byte pair encoding, and bytes for what is rare, as in LLaMA."""

    effects: ClassVar[dict[str, Only]] = {"size": Only("model", (None,))}
    name: Literal["sentencepiece"] = "sentencepiece"
    size: int = setting(
        2000,
        help="tokens of the vocabulary that is trained on the training text; 259 are bytes and "
        "signs of control",
        unit="tokens",
        ge=300,
        le=1_000_000,
    )
    model: str | None = setting(
        None,
        help="a trained model instead (a .model file), such as LLaMA-2's tokenizer.model; what it "
        "does to blanks and rare characters is its own choice, while a model that is trained here "
        "loses nothing but U+2581, which becomes a blank",
        learned=False,
    )


Tokenizer = Annotated[Words | SentencePiece, Field(discriminator="name")]

_OF_IMAGES = Only("name", but=TEXTS, remedy="mnist")
_OF_TEXT = Only("name", TEXTS)


class Data(Section):
    """The samples, and their partition across clients."""

    effects: ClassVar[dict[str, Only]] = {
        "path": Only("name", but=("digits", "python-topics"), remedy="npz"),
        "threads": Only("name", ("imagenet",)),
        **dict.fromkeys(("resize", "augment", "mean", "std", "label_noise"), _OF_IMAGES),
        **dict.fromkeys(("context", "tokenizer"), _OF_TEXT),
        "test_share": Only("name", UNDIVIDED),
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
        "python-topics",
        "wikitext2",
        "text",
    ] = setting(
        "digits",
        help="digits ships with scikit-learn and needs no network; mnist, emnist (balanced), "
        "emnist-digits, cifar10 and cifar100 are torchvision's; npz and folder are your own data "
        "at data.path; imagenet: JPEG files in train/ and val/ of data.path, one folder per class, "
        "decoded when they are needed. Text: python-topics, the help texts of Python itself, needs "
        "no network; wikitext2: its three files in data.path; text: your own, at data.path",
    )
    path: str | None = setting(
        None,
        help="a Keras-style .npz file (x_train, y_train, x_test, y_test), an image folder with "
        "train/ and test/, or torchvision's download folder (default: the user's cache); "
        "wikitext2: the folder with wiki.train.tokens, wiki.valid.tokens and wiki.test.tokens, or "
        "train.txt, valid.txt and test.txt; text: a file, a folder of .txt files, each of which "
        "is a document, or a folder with train/ and test/",
        learned=False,
    )
    context: int = setting(
        35, help="T, the tokens of a sample of text", unit="tokens", ge=1, le=65_536
    )
    tokenizer: Tokenizer = setting(Words(), help="how text becomes tokens", fixed=True)
    test_share: float = setting(
        0.1,
        help="share of the text, at its end, that is the test text; a folder of your own with "
        "train/ and test/ is divided already",
        gt=0,
        lt=1,
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
        help="reshuffle: a new order in each pass; fixed: the same order in each pass, for text in "
        "pieces (contiguous, documents, lengths) that of GWPF's batchify: as many columns as a "
        "batch has samples, read side by side; replacement: every sample is drawn independently, "
        "with replacement",
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
    partition: Partition = setting(
        IID(),
        help="partition of the samples across clients; for text, contiguous unless it is given",
    )

    @property
    def kind(self) -> str:
        """What the samples are: IMAGES or TEXT."""
        return TEXT if self.name in TEXTS else IMAGES

    @property
    def task(self) -> str:
        """The import path of the task that learns from such samples."""
        return TASKS[self.kind]

    @model_validator(mode="before")
    @classmethod
    def _text_is_cut_into_pieces(cls, values: Any) -> Any:
        """Give text, whose windows are not independent, another partition by default."""
        if isinstance(values, dict) and values.get("name") in TEXTS:
            return {"partition": {"name": "contiguous"}} | values
        return values

    @model_validator(mode="after")
    def _own_data_has_a_path(self) -> "Data":
        if self.name in ("npz", "folder", "imagenet", "wikitext2", "text") and self.path is None:
            raise ValueError(f"name {self.name} needs path; set data.path to the file or folder")
        if self.name == "folder" and self.resize is None:
            raise ValueError(
                "name folder needs resize; set data.resize to the images' side in pixels"
            )
        return self
