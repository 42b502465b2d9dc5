"""Settings of the sync policies: which parameters travel. In which format is in codecs.py.

The classes that implement them are in trainer/exchange.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from trainer.config.base import LARGE, MANY, Only, Section, setting
from trainer.config.fit import EVERYONE, LATE, LOCAL, ROWS, SINGLE, TREND, UPDATES, WHOLE


class Full(Section):
    """Every parameter, every round."""

    name: Literal["full"] = "full"
    implementation: ClassVar[str] = "trainer.exchange.policies.policy:Policy"


class Freezing(Section):
    """Settings shared by APF and GWPF: the drift ratio |EMA(g)| / EMA(|g|) and its threshold.

    g is the change of the agreed model over a round. A parameter whose ratio is near 1 still moves
    in one direction; near 0 it only oscillates. Pure noise settles at sqrt((1 - ema) / (1 + ema)).
    """

    lacks: ClassVar[frozenset[str]] = frozenset({ROWS, WHOLE})
    instead: ClassVar[dict[str, tuple[str, str]]] = {ROWS: ("unit", "row")}
    effects: ClassVar[dict[str, Only]] = {
        "tighten_at": Only("threshold", remedy="0.05"),
        "threshold_floor": Only("threshold", remedy="0.05"),
        "stagger": Only("threshold", remedy="0.05"),
    }
    threshold: float = setting(
        0.05,
        help="T: freeze a parameter when its drift ratio falls below this; 0 never freezes",
        ge=0,
        le=1,
    )
    ema: float = setting(0.99, help="alpha: weight of the past in the moving averages", ge=0, lt=1)
    tighten_at: float = setting(
        0.8, help="halve the threshold when the frozen share rises above this", gt=0, le=1
    )
    threshold_floor: float = setting(1e-3, help="halving the threshold stops at this", ge=0, le=1)
    unit: Literal["element", "row"] = setting(
        "element",
        help="what freezes and thaws as a whole; row: all of one index of a tensor's first "
        "dimension, judged by the sums over it. Beside codec lowrank only rows can be left out",
        fixed=True,
    )
    stagger: bool = setting(
        False,
        help="shift the frozen period of each parameter by an amount of its own, so that not all "
        "that froze together come back in the same round",
    )


class APF(Freezing):
    """Adaptive Parameter Freezing (Chen et al., ICDCS 2021): a frozen parameter stands still.

    The frozen period grows by one round each time the parameter is still stable when it wakes, and
    halves when it is not. The mask follows from agreed values, so it costs no traffic. Large models
    tolerate that unstable parameters are frozen at random as well: APF# and APF++.
    """

    name: Literal["apf"] = "apf"
    implementation: ClassVar[str] = "trainer.exchange.policies.apf:APF"
    needs: ClassVar[dict[str, str]] = {SINGLE: "keeps its statistics in fp32"}
    effects: ClassVar[dict[str, Only]] = Freezing.effects | {
        "random_probability": Only("random", ("sharp", "aggressive")),
        "random_probability_ramp": Only("random", ("plus", "aggressive")),
        "random_length_ramp": Only("random", ("plus",)),
    }
    random: Literal["none", "sharp", "plus", "aggressive"] = setting(
        "none",
        help="freeze unstable parameters at random as well; sharp: APF#, for one round, with a "
        "fixed probability; plus: APF++, with growing probability and length; aggressive: for one "
        "round, with growing probability",
    )
    random_probability: float = setting(
        0.5,
        help="probability in sharp, and its upper limit in aggressive; 0 is plain APF",
        ge=0,
        le=1,
    )
    random_probability_ramp: int = setting(
        2000,
        help="in plus and aggressive, the probability in round K is K divided by this",
        unit="rounds",
        ge=1,
        le=30_000,
    )
    random_length_ramp: float = setting(
        20.0,
        help="in plus, a random freeze in round K is shorter than K divided by this, where K "
        "counts up to random_probability_ramp",
        ge=1,
        le=LARGE,
    )


class GWPF(Freezing):
    """Gradient-Wise Parameter Freezing (Computer Networks 255, 2024) as described in the paper.

    A frozen parameter keeps training at each client and is only left out of the average. A client
    votes to thaw it when its displacement since the freeze, divided by the distance that it
    travelled, reaches thaw_threshold.
    """

    name: Literal["gwpf"] = "gwpf"
    implementation: ClassVar[str] = "trainer.exchange.policies.gwpf:GWPF"
    needs: ClassVar[dict[str, str]] = {
        SINGLE: "keeps its statistics in fp32",
        LOCAL: "judges frozen parameters by their local training",
    }
    thaw_threshold: float = setting(
        0.5,
        help="T_thaw: a client votes to thaw a parameter when its displacement divided by the "
        "distance travelled reaches this",
        ge=0,
        le=1,
    )
    quorum: float = setting(
        0.5,
        help="share of the round's clients whose votes thaw a parameter",
        gt=0,
        le=1,
    )
    votes: Literal["before", "riding"] = setting(
        "before",
        help="before: clients vote first, and the outcome decides what travels in the same round; "
        "riding: votes travel with the values, in no collective of their own, and decide what "
        "travels in the next round",
    )
    max_frozen_rounds: int = setting(
        50,
        help="maximum consecutive rounds a parameter may be left out of the exchange; bounds "
        "staleness",
        unit="rounds",
        ge=1,
        le=32767,
    )


class GWPFReleased(Section):
    """Rule of the published GWPF code, defects included, for comparison (gwpf-released).

    A freeze label is permanent, a single vote thaws, and votes travel as int32. So it sends at
    least 4 bytes per parameter, and never less than FedAvg.
    """

    lacks: ClassVar[frozenset[str]] = frozenset({ROWS, WHOLE})
    name: Literal["gwpf-released"] = "gwpf-released"
    implementation: ClassVar[str] = "trainer.exchange.policies.gwpf_released:GWPFReleased"
    needs: ClassVar[dict[str, str]] = {
        SINGLE: "keeps its statistics in fp32",
        LOCAL: "judges frozen parameters by their local training",
        EVERYONE: "has no rule for clients that sit out a round",
    }
    threshold: float = setting(
        0.5,
        help="freeze a parameter when its drift ratio falls below this; a client votes to thaw it "
        "when its own ratio is at or above this",
        ge=0,
        le=1,
    )
    ema: float = setting(0.99, help="alpha: weight of the past in the moving averages", ge=0, lt=1)
    tighten_at: float = setting(
        0.8,
        help="halve the threshold in every round in which the labelled share is above this",
        gt=0,
        le=1,
    )
    aliased: bool = setting(
        True,
        help="the drift ratio averages weights (two buffers alias); off: updates, as intended",
    )


class Streaming(Section):
    """Streaming DiLoCo's fragments (Douillard et al. 2025): each round a part of the model travels.

    The others stay at the clients, which keep training them, until it is their turn. So with H / F
    local steps a round each parameter is averaged every H steps, as in DiLoCo, and a round sends
    one F-th of the bytes. The server's momentum of a fragment moves only when that travels.
    """

    lacks: ClassVar[frozenset[str]] = frozenset({ROWS, WHOLE})
    name: Literal["streaming"] = "streaming"
    implementation: ClassVar[str] = "trainer.exchange.policies.streaming:Streaming"
    needs: ClassVar[dict[str, str]] = {LOCAL: "has clients train what does not travel"}
    effects: ClassVar[dict[str, Only]] = {
        "pattern": Only("fragments", but=(1,), remedy="4"),
        "alpha": Only("overlap", remedy="1"),
    }
    fragments: int = setting(
        4,
        help="F: each round one of so many fragments of the model travels; 1: the whole model",
        ge=1,
        le=64,
        fixed=True,
    )
    pattern: Literal["strided", "sequential"] = setting(
        "strided",
        help="which layers are a fragment; strided: spread over the depth of the model, as in the "
        "paper; sequential: neighbours. A layer of more than its share is cut",
        fixed=True,
    )
    overlap: int = setting(
        0,
        help="tau: a fragment is exchanged while clients take so many steps of the next round, and "
        "arrives then; 0: a round waits for it. It needs a rank for each client",
        unit="steps",
        ge=0,
        le=MANY,
        fixed=True,
    )
    alpha: float = setting(
        0.5,
        help="weight of a client's own values where a fragment arrives late; 0: it takes over the "
        "agreed ones, without what it has trained since",
        ge=0,
        le=1,
    )

    @property
    def required(self) -> dict[str, str]:
        """The needs, and those of an exchange that arrives in the next round."""
        late = "has means arrive in the next round (sync.overlap)"
        return self.needs | ({EVERYONE: late, LATE: late} if self.overlap else {})


class Gaia(Section):
    """Gaia's significance filter (Hsieh et al., NSDI 2017): small changes wait at the client.

    A client sends a parameter once its unsent change exceeds a share of the parameter's value, and
    continues from its own value until then. Clients send different parameters: payload counts what
    each sends, with the bits or indices that identify it; wire counts the union over the clients.
    """

    lacks: ClassVar[frozenset[str]] = frozenset({ROWS, WHOLE})
    name: Literal["gaia"] = "gaia"
    implementation: ClassVar[str] = "trainer.exchange.transforms.gaia:Gaia"
    needs: ClassVar[dict[str, str]] = {
        SINGLE: "keeps what a client does not send in fp32",
        UPDATES: "keeps what a client does not send as a change of its parameters",
    }
    significance: float = setting(
        0.01,
        help="share of its value by which a parameter must change to be sent; 0 sends all changes",
        ge=0,
        le=LARGE,
    )
    decay_rounds: float = setting(
        2000.0,
        help="in round t the share is divided by sqrt(1 + (t - 1) / this); 1: by sqrt(t)",
        unit="rounds",
        gt=0,
        le=LARGE,
    )


class CMFL(Section):
    """Communication-Mitigated Federated Learning (Wang et al., ICDCS 2019): off-trend clients skip.

    A client uploads nothing if its update agrees in sign with the last change of the model in too
    few coordinates; the mean is over the other clients. This saves uploads to a server (payload).
    A ring of ranks moves as much as before (wire), except in a round that all clients skip.
    """

    name: Literal["cmfl"] = "cmfl"
    implementation: ClassVar[str] = "trainer.exchange.transforms.cmfl:CMFL"
    needs: ClassVar[dict[str, str]] = {
        SINGLE: "compares directions in fp32",
        TREND: "compares clients with the last change of all values",
    }
    relevance: float = setting(
        0.7, help="share of the coordinates that must agree; 0: all clients upload", ge=0, le=1
    )
    decay_rounds: float = setting(
        20_000.0,
        help="in round t the share is divided by sqrt(1 + (t - 1) / this); 1: by sqrt(t)",
        unit="rounds",
        gt=0,
        le=LARGE,
    )


Sync = Annotated[
    Full | APF | GWPF | GWPFReleased | Streaming | Gaia | CMFL, Field(discriminator="name")
]
