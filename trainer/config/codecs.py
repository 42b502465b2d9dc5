"""Settings of the codecs: in which format messages travel.

The classes that implement them are in trainer/exchange/reductions.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from trainer.config.base import Only, Section, setting
from trainer.config.fit import ROWS, SINGLE, TREND, UPDATES, WHOLE


def _block(default: int = 64, help: str = "values that share one scale of 2 bytes") -> Any:
    """Declare the setting that all formats with blocks share."""
    return setting(
        default,
        help=help,
        unit="values",
        ge=8,
        le=65536,
        multiple_of=8,
    )


class FP32(Section):
    """Values as they are, 4 bytes each."""

    name: Literal["fp32"] = "fp32"
    implementation: ClassVar[str] = "trainer.exchange.reductions.formats:plain_sum"


class BF16(Section):
    """Values as bfloat16, 2 bytes each.

    Each client's message is rounded separately; the owner of a value adds the clients' values in
    fp32 and rounds the mean. So the result depends neither on the number of ranks nor on which rank
    trains a client.
    """

    name: Literal["bf16"] = "bf16"
    implementation: ClassVar[str] = "trainer.exchange.reductions.formats:bf16"
    error_feedback: bool = setting(
        False,
        help="each client keeps the rounding error of its update and adds it to the next",
        fixed=True,
    )


class FP64(Section):
    """Values as doubles, 8 bytes each: for model.precision=fp64."""

    name: Literal["fp64"] = "fp64"
    implementation: ClassVar[str] = "trainer.exchange.reductions.formats:plain_sum"


class Int8(Section):
    """Values as 8-bit integers with one scale for each block: about a quarter of fp32.

    Every client's message is coded by itself; the owner of a share takes the mean in fp32 and codes
    it again. With error feedback, what coding cost a client's update is in its next one; what it
    costs the mean on the way back is not made up for. Clients' gradients, which are used only once,
    are rounded at random instead, without bias. Under gaia, which keeps what is not sent anyway,
    that is where coding's losses go too.
    """

    name: Literal["int8"] = "int8"
    implementation: ClassVar[str] = "trainer.exchange.reductions.formats:blocks"
    bits: ClassVar[int] = 8
    block: int = _block()
    error_feedback: bool = setting(
        True,
        help="each client keeps the coding error of its update and adds it to the next",
        fixed=True,
    )
    needs: ClassVar[dict[str, str]] = {SINGLE: "codes fp32 values"}


class Int4(Int8):
    """Values as 4-bit integers, two in a byte: about a seventh of fp32. The rest is as for int8."""

    name: Literal["int4"] = "int4"  # type: ignore[assignment]
    once: ClassVar[str] = "trainer.exchange.reductions.formats:gradients"
    bits: ClassVar[int] = 4


class FP8(Int8):
    """Values as 8-bit floating-point numbers (e4m3) with one scale for each block.

    As many bytes as int8. A value's error is a share of the value itself and not of the block's
    largest one, so small values are coded better and the largest ones less well. The rest is as for
    int8.
    """

    name: Literal["fp8"] = "fp8"  # type: ignore[assignment]
    implementation: ClassVar[str] = "trainer.exchange.reductions.formats:float8"


class Ahead(Section):
    """What formats have in common that leave most of an update for later rounds."""

    effects: ClassVar[dict[str, Only]] = {"step_ahead": Only("error_feedback", (True,))}
    step_ahead: bool = setting(
        False,
        help="a client trains on from where all of its updates would have led, not from the agreed "
        "model, so its steps correct what it keeps",
        fixed=True,
    )

    @property
    def required(self) -> dict[str, str]:
        """The needs, and that of clients whose own values are no policy's."""
        ahead = "starts clients from values of their own (codec.step_ahead)"
        return self.needs | ({WHOLE: ahead} if self.step_ahead else {})


class Sign(Ahead):
    """One bit for each value, and one scale for each block: about a thirtieth of fp32.

    A value is sent as its sign, and decoded as the mean magnitude of its block, both up and down
    (EF-signSGD, Karimireddy et al., ICML 2019). With error feedback, what that costs a client's
    update is in its next one, and what it costs the mean is kept by its owners for the next mean.
    Whole gradients, which are used only once, travel as int8.
    """

    name: Literal["sign"] = "sign"
    implementation: ClassVar[str] = "trainer.exchange.reductions.formats:signs"
    once: ClassVar[str] = "trainer.exchange.reductions.formats:int8"
    needs: ClassVar[dict[str, str]] = {
        SINGLE: "codes fp32 values",
        UPDATES: "adds what coding costs an update to the next one",
        WHOLE: "keeps what coding costs whole means",
    }
    block: int = _block(256)
    error_feedback: bool = setting(
        True,
        help="each client keeps the coding error of its update and adds it to the next; owners do "
        "the same with the mean",
        fixed=True,
    )


class RandomK(Ahead):
    """A share of the values, which all ranks choose at random in each round: no index travels.

    Each client keeps what is not chosen, and adds it to its next update. So a value arrives after
    1 / share rounds on average. Whole gradients, which are used only once, travel as int8.
    """

    name: Literal["randomk"] = "randomk"
    implementation: ClassVar[str] = "trainer.exchange.reductions.formats:random_k"
    once: ClassVar[str] = "trainer.exchange.reductions.formats:int8"
    needs: ClassVar[dict[str, str]] = {
        SINGLE: "codes fp32 values",
        UPDATES: "adds what is not chosen of an update to the next one",
    }
    lacks: ClassVar[frozenset[str]] = frozenset({TREND})
    effects: ClassVar[dict[str, Only]] = {**Ahead.effects, "block": Only("bits", (8,))}
    share: float = setting(0.05, help="of the values that travel in a round", gt=0, le=1)
    bits: Literal[8, 32] = setting(
        32, help="bits of a value; 32 is fp32, which a collective adds", unit="bits"
    )
    block: int = _block()
    error_feedback: bool = setting(
        True,
        help="each client keeps what is not sent of its update and adds it to the next",
        fixed=True,
    )


class Sparse(Ahead):
    """The largest values of each block only, a bit or two each: far fewer bytes than fp32.

    A client sends the share of its update that is largest, as places and signs with one magnitude
    for each block. The owner of a block takes the mean, and sends the same share of it, with two
    magnitudes. Clients keep what they do not send for their next update, and owners for their next
    mean. Whole gradients, which are used only once, travel as int8.
    """

    name: Literal["sparse"] = "sparse"
    implementation: ClassVar[str] = "trainer.exchange.reductions.formats:top_k"
    once: ClassVar[str] = "trainer.exchange.reductions.formats:int8"
    needs: ClassVar[dict[str, str]] = {
        SINGLE: "codes fp32 values",
        UPDATES: "adds what is not sent of an update to the next one",
        WHOLE: "keeps what is not sent of whole means",
    }
    lacks: ClassVar[frozenset[str]] = frozenset({TREND})
    share: float = setting(0.05, help="of each block's values, which are sent", gt=0, le=1)
    block: int = _block(1024, "values of which the largest are sent, and share one magnitude")
    error_feedback: bool = setting(
        True,
        help="each client keeps what is not sent of its update and adds it to the next; owners do "
        "the same with the mean",
        fixed=True,
    )


class Allowance(Section):
    """How many bytes a client's message may have: a number, or a share of fp32's."""

    bytes: int | None = setting(
        None, help="bytes of a message at most", unit="bytes", ge=1, le=2**40, fixed=True
    )
    share: float | None = setting(
        None, help="share of the bytes that the model's values take in fp32", gt=0, le=1, fixed=True
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> "Allowance":
        if (self.bytes is None) == (self.share is None):
            raise ValueError("give bytes or share, one of the two")
        return self

    def of(self, dense: int) -> int:
        """Return the bytes, where the values in fp32 take `dense`."""
        return self.bytes if self.bytes is not None else int((self.share or 0.0) * dense)


class LowRank(Ahead):
    """Matrices as two thin factors of few bits each: far fewer bytes than they have themselves.

    PowerSGD (Vogels et al., NeurIPS 2019) on clients' updates, with coded factors: all clients
    share a basis, which follows what their updates have in common. Biases have no factors. What
    a client's factors do not hold stays with it, for its next update. Whole gradients, which are
    used only once, travel as int8.
    """

    name: Literal["lowrank"] = "lowrank"
    implementation: ClassVar[str] = "trainer.exchange.reductions.formats:low_rank"
    once: ClassVar[str] = "trainer.exchange.reductions.formats:gradients"
    needs: ClassVar[dict[str, str]] = {
        SINGLE: "codes fp32 values",
        UPDATES: "codes changes of parameters along a basis that lasts over rounds",
        ROWS: "codes whole rows of matrices",
    }
    effects: ClassVar[dict[str, Only]] = {**Ahead.effects, "block": Only("bits", (4, 8))}
    rank: int = setting(
        2,
        help="r, columns of a matrix's factors; with more of them less is left for later",
        ge=1,
        le=4096,
        fixed=True,
    )
    budget: Allowance | None = setting(
        None,
        help="bytes of a client's message; each matrix's rank then follows where updates move most "
        "per byte, and rank is where they start",
        fixed=True,
    )
    bits: Literal[4, 8, 32] = setting(
        4, help="bits of a factor's value, and of a value without factors; 32 is fp32", unit="bits"
    )
    block: int = _block()
    error_feedback: bool = setting(
        True,
        help="each client keeps what its factors do not hold and adds it to its next update",
        fixed=True,
    )


Codec = Annotated[
    FP32 | BF16 | FP64 | Int8 | Int4 | FP8 | Sign | RandomK | Sparse | LowRank,
    Field(discriminator="name"),
]
