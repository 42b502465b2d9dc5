"""What is said of a codec that costs more time than it saves: only where that is certain."""

from dataclasses import replace

import pytest

from tests.jobs import experiment_run
from tests.ranks import ranks
from trainer.engine.pace import Pace, verdict
from trainer.engine.round import run_round

# 10 MB sent in 1 s, 40 MB in fp32: 30 MB less, which take 3 s
COSTLY = Pace(coding=10.0, waiting=1.0, sent=10_000_000, plain=40_000_000)


def test_coding_that_costs_more_than_it_saves_is_told() -> None:
    assert verdict([COSTLY] * 2, "int8", 20.0) == (
        "codec.name=int8: each rank spent 10.0 s on coding messages, and the 30.0 MB by which it "
        "sent less than in fp32 take 3.0 s at most on this link (80 Mbit/s or more); here "
        "codec.name=fp32 is faster"
    )


def test_messages_that_are_larger_together_than_a_sum_are_told() -> None:
    many = replace(COSTLY, sent=50_000_000)
    assert verdict([many] * 2, "int8", 20.0) == (
        "codec.name=int8: each rank spent 10.0 s on coding messages, and sent no fewer bytes than "
        "a sum in fp32 would have, 50.0 MB, since each of its clients' messages travels by itself; "
        "between these ranks codec.name=fp32 is faster"
    )


@pytest.mark.parametrize(
    "ranks",
    [
        [COSTLY, replace(COSTLY, coding=3.5)],  # one rank was faster: it saves half a second
        [replace(COSTLY, waiting=4.0)] * 2,  # a slow link
        [Pace()],  # no round was played
    ],
)
def test_what_may_have_saved_time_is_not(ranks: list[Pace]) -> None:
    assert verdict(ranks, "int8", 20.0) == ""


def test_the_link_is_that_of_the_rank_that_waited_least() -> None:
    """The others waited for it, too."""
    late = replace(COSTLY, waiting=100.0)
    assert "(80 Mbit/s or more)" in verdict([late, COSTLY, late], "int8", 20.0)


def test_what_hardly_matters_beside_the_training_is_not_told() -> None:
    assert verdict([COSTLY], "int8", 139.0)
    assert verdict([COSTLY], "int8", 141.0) == ""


def measured(tree: dict) -> dict[str, float]:
    rank = experiment_run(tree)
    before = sum(rank.parts.group.books.wire.values())
    for number in (1, 2):
        run_round(rank, number)
    wire = sum(rank.parts.group.books.wire.values()) - before
    told = rank.pace.told(rank.parts.world, "int8", 0.0)
    return {**vars(rank.pace), "wire": wire, "size": len(rank.server.anchor), "told": told}


def test_a_run_counts_its_exchanges() -> None:
    results = ranks(2).run(measured, {"clients": 4, "codec": {"name": "int8"}})
    for result in results:
        assert 0 < result["sent"] <= result["wire"]
        assert result["plain"] == 2 * 4 * result["size"]  # two rounds of a ring between two ranks
        assert result["coding"] > 0 and result["waiting"] > 0
        assert result["told"] == ""  # it took less than a second
