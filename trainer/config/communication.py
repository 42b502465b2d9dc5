"""Settings of what is exchanged and how: sync policy, codec, and who trains whom."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from trainer.config.base import Section, setting
from trainer.config.fit import EVERYONE, LOCAL, SINGLE, UPDATES


class Full(Section):
    """Every parameter, every round."""

    name: Literal["full"] = "full"
    implementation: ClassVar[str] = "trainer.exchange.policies.policy:Policy"


class Freezing(Section):
    """What APF and GWPF share: the statistic |EMA(g)| / EMA(|g|) and its threshold.

    g is the change of the agreed model over a round. Near 1 a parameter still travels, near 0 it
    only oscillates; pure noise settles at sqrt((1 - ema) / (1 + ema)).
    """

    threshold: float = setting(
        0.05, help="T: freeze a parameter whose statistic falls below; 0 never freezes", ge=0, le=1
    )
    ema: float = setting(0.99, help="alpha, the memory of the moving averages", ge=0, lt=1)
    tighten_at: float = setting(
        0.8, help="halve the threshold when the frozen share rises above this", gt=0, le=1
    )
    threshold_floor: float = setting(
        1e-3, help="the threshold is not halved below this", ge=0, le=1
    )


class APF(Freezing):
    """Adaptive Parameter Freezing (Chen et al., ICDCS 2021): a frozen parameter stands still.

    The frozen period grows by one round each time the parameter is still stable when it wakes, and
    halves when it is not. The mask follows from agreed values, so it costs no traffic. Large models
    bear that unstable parameters are frozen too, at random: APF# and APF++.
    """

    name: Literal["apf"] = "apf"
    implementation: ClassVar[str] = "trainer.exchange.policies.apf:APF"
    needs: ClassVar[dict[str, str]] = {SINGLE: "keeps its statistics in fp32"}
    random: Literal["none", "sharp", "plus", "aggressive"] = setting(
        "none",
        help="freeze unstable parameters too; sharp: APF#, for one round, always as probably; "
        "plus: APF++, ever more probably and longer; aggressive: ever more probably, for one round",
    )
    random_probability: float = setting(
        0.5, help="of sharp; and what it grows to at most in aggressive; 0 is plain APF", ge=0, le=1
    )
    random_probability_ramp: int = setting(
        2000,
        help="in plus and aggressive, the probability in round K is K over this",
        unit="rounds",
        ge=1,
        le=30_000,
    )
    random_length_ramp: float = setting(
        20.0,
        help="in plus, a random freeze in round K is shorter than K over this, K at most "
        "random_probability_ramp",
        ge=1,
    )


class GWPF(Freezing):
    """Gradient-Wise Parameter Freezing (Computer Networks 255, 2024) as the paper intends it.

    A frozen parameter goes on training at each client and is only left out of the average. Clients
    vote to thaw it when displacement since freezing over distance travelled reaches thaw_threshold.
    """

    name: Literal["gwpf"] = "gwpf"
    implementation: ClassVar[str] = "trainer.exchange.policies.gwpf:GWPF"
    needs: ClassVar[dict[str, str]] = {
        SINGLE: "keeps its statistics in fp32",
        LOCAL: "judges frozen parameters by their local training",
    }
    thaw_threshold: float = setting(
        0.5, help="T_thaw: a client votes to thaw at this share of displacement", ge=0, le=1
    )
    quorum: float = setting(
        0.5,
        help="share of the round's clients whose votes thaw a parameter",
        gt=0,
        le=1,
    )
    max_frozen_rounds: int = setting(
        50,
        help="left out of at most so many rounds in a row: staleness stays bounded",
        unit="rounds",
        ge=1,
        le=32767,
    )


class GWPFReleased(Section):
    """The published GWPF code's rule, defects included, for comparison (gwpf-released).

    A freeze label is permanent, one vote of all thaws, votes travel as int32: it sends at least
    4 bytes per parameter and can't send less than FedAvg.
    """

    name: Literal["gwpf-released"] = "gwpf-released"
    implementation: ClassVar[str] = "trainer.exchange.policies.gwpf_released:GWPFReleased"
    needs: ClassVar[dict[str, str]] = {
        SINGLE: "keeps its statistics in fp32",
        LOCAL: "judges frozen parameters by their local training",
        EVERYONE: "has no rule for clients that sit out a round",
    }
    threshold: float = setting(
        0.5, help="freezes below, votes to thaw at or above; the same number for both", ge=0, le=1
    )
    ema: float = setting(0.99, help="alpha, the memory of the moving averages", ge=0, lt=1)
    tighten_at: float = setting(
        0.8, help="halve the threshold in every round whose label share is above", gt=0, le=1
    )
    aliased: bool = setting(
        True, help="the statistic is of weights (two buffers alias); off: of updates, as was meant"
    )


class Gaia(Section):
    """Gaia's significance filter (Hsieh et al., NSDI 2017): small changes wait at the client.

    A client sends a parameter once what it has not sent yet exceeds a share of the parameter's
    value, and goes on from its own value until then. Each client sends others: payload counts what
    it sends and the bits or indices that say which; wire counts the union over the clients.
    """

    name: Literal["gaia"] = "gaia"
    implementation: ClassVar[str] = "trainer.exchange.transforms.gaia:Gaia"
    needs: ClassVar[dict[str, str]] = {
        SINGLE: "keeps what a client does not send in fp32",
        UPDATES: "keeps what a client does not send as a change of its parameters",
    }
    significance: float = setting(
        0.01, help="share of its value that a parameter has to change by; 0 sends all changes", ge=0
    )
    decay_rounds: float = setting(
        2000.0,
        help="in round t the share is divided by sqrt(1 + (t - 1) / this); 1: by sqrt(t)",
        unit="rounds",
        gt=0,
    )


class CMFL(Section):
    """Communication-Mitigated Federated Learning (Wang et al., ICDCS 2019): off-trend clients skip.

    A client uploads nothing if its update agrees in sign with the last change of the model in too
    few coordinates; the mean is over the others. That saves a server's uploads (payload). A ring of
    ranks moves as much as before (wire), except in a round that all clients skip.
    """

    name: Literal["cmfl"] = "cmfl"
    implementation: ClassVar[str] = "trainer.exchange.transforms.cmfl:CMFL"
    needs: ClassVar[dict[str, str]] = {SINGLE: "compares directions in fp32"}
    relevance: float = setting(
        0.7, help="share of the coordinates that has to agree; 0: everyone uploads", ge=0, le=1
    )
    decay_rounds: float = setting(
        20_000.0,
        help="in round t the share is divided by sqrt(1 + (t - 1) / this); 1: by sqrt(t)",
        unit="rounds",
        gt=0,
    )


Sync = Annotated[Full | APF | GWPF | GWPFReleased | Gaia | CMFL, Field(discriminator="name")]


class FP32(Section):
    """Values travel as they are, 4 bytes each."""

    name: Literal["fp32"] = "fp32"
    implementation: ClassVar[str] = "trainer.exchange.reductions.formats:plain_sum"


class BF16(Section):
    """Values travel as bfloat16, 2 bytes each.

    Every client's message is rounded by itself; the owner of a value adds the clients' in fp32 and
    rounds the mean. So the result depends neither on the number of ranks nor on who trains whom.
    """

    name: Literal["bf16"] = "bf16"
    implementation: ClassVar[str] = "trainer.exchange.reductions.formats:bf16"
    error_feedback: bool = setting(
        False, help="each client keeps what rounding lost of its update, and adds it to the next"
    )


class FP64(Section):
    """Values travel as doubles, 8 bytes each: for model.precision=fp64."""

    name: Literal["fp64"] = "fp64"
    implementation: ClassVar[str] = "trainer.exchange.reductions.formats:plain_sum"


class Int8(Section):
    """Values travel as 8-bit integers with one scale for each block: about a quarter of fp32.

    Every client's message is coded by itself; the owner of a share takes the mean in fp32 and codes
    it again. With error feedback, what coding cost a client's update is in its next one; what it
    costs the mean on the way back is not made up for. Clients' gradients, which are used only once,
    are rounded at random instead, without bias. Under gaia, which keeps what is not sent anyway,
    that is where coding's losses go too.
    """

    name: Literal["int8"] = "int8"
    implementation: ClassVar[str] = "trainer.exchange.reductions.formats:int8"
    block: int = setting(
        64, help="values that share a scale (2 bytes)", unit="values", ge=8, le=65536, multiple_of=8
    )
    error_feedback: bool = setting(
        True, help="each client keeps what coding lost of its update, and adds it to the next"
    )
    needs: ClassVar[dict[str, str]] = {SINGLE: "codes fp32 values"}


Codec = Annotated[FP32 | BF16 | FP64 | Int8, Field(discriminator="name")]
