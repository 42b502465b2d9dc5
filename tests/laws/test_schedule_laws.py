"""Laws of rounds whose number of local steps follows from the learning rate (QSR)."""

from typing import Any

import numpy as np
import pytest

from tests import bounds, checkpoint_jobs, law_jobs
from tests.jobs import history
from tests.laws.test_state_laws import BASE, CODEC, SYNC, UNMASKED, fits
from tests.names import ALGORITHMS
from tests.products import sampled
from tests.ranks import ranks

LR, TOTAL = 0.05, 48
DECAY = {"total_steps": TOTAL, "decay": "cosine", "lr_end": 0.1}
GROWING = DECAY | {"steps": 2, "alpha": 0.06}
STEPS = [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 4, 6, 15]  # of its rounds
FIXED = DECAY | {"steps": 2}


def scheduled(phase: dict[str, Any], rounds: int, **settings: Any) -> dict[str, Any]:
    schedule = {"batch_size": 32, "phases": [phase]}
    optimizer = {"lr": LR} | settings.pop("optimizer", {})
    return BASE | {"schedule": schedule, "rounds": rounds, "optimizer": optimizer} | settings


@pytest.mark.parametrize(
    "policy,codec,algorithm,size",
    sampled(SYNC, CODEC, ALGORITHMS, [1, 2], fits=lambda p, c, a, _: fits(a, p, c)),
)
def test_at_a_constant_rate_it_is_a_fixed_number_of_steps_to_the_bit(
    policy, codec, algorithm, size
):
    """(0.15 / 0.05)^2 = 9 is above 4, and (0.01 / 0.05)^2 = 0.04 is below it."""
    changes = {"sync": SYNC[policy], "codec": CODEC[codec], "algorithm": {"name": algorithm}}
    for alpha, steps in ((0.15, 9), (0.01, 4)):
        by_rate, fixed = (
            ranks(size).run(law_jobs.models, scheduled(phase, 4, **changes), 4)
            for phase in ({"steps": 4, "alpha": alpha}, {"steps": steps})
        )
        for ours, theirs in zip(by_rate, fixed, strict=True):
            assert [row["anchor"].tobytes() for row in ours] == [
                row["anchor"].tobytes() for row in theirs
            ]


@pytest.mark.parametrize("sampling", ["reshuffle", "replacement"])
@pytest.mark.parametrize("size", [1, 2])
def test_the_same_steps_and_samples_are_counted_in_fewer_rounds(sampling, size):
    data = BASE["data"] | {"sampling": sampling}
    rows, fixed = (
        ranks(size).run(history, scheduled(phase, rounds, data=data), rounds)[0][1:]
        for phase, rounds in ((GROWING, len(STEPS)), (FIXED, TOTAL // 2))
    )
    clients = BASE["clients"]
    assert [row["steps"] for row in rows] == [clients * steps for steps in STEPS]
    assert len(rows) < len(fixed)
    for count in ("steps", "samples"):
        assert sum(row[count] for row in rows) == sum(row[count] for row in fixed) > 0
    for row in rows:  # a round sends the same, however long it took
        assert row["payload"] == rows[0]["payload"]


def test_a_client_alone_takes_the_same_steps_whatever_the_rule_says():
    """Nothing is averaged, so the rounds are only where it pauses: batches and rates are alike."""
    phases = (DECAY | {"steps": 1}, TOTAL), (GROWING, len(STEPS))
    every, growing = (
        ranks(1).run(history, scheduled(phase, rounds, clients=1, **bounds.DOUBLE), rounds)[0]
        for phase, rounds in phases
    )
    difference = np.abs(every[-1]["anchor"] - growing[-1]["anchor"]).max()
    assert difference < bounds.of_runs(every)
    assert np.abs(every[-1]["anchor"] - every[-2]["anchor"]).max() > bounds.of_runs(every)


@pytest.mark.parametrize(
    "policy,codec,size",
    sampled(
        [name for name in SYNC if name != "gwpf-released"],  # which has no partial participation
        ["fp32", "bf16-feedback", "int4", "sign", "sparse", "randomk", "lowrank"],
        [1, 2, 4],
        fits=lambda policy, codec, _: fits("fedavg", policy, codec),
    ),
)
def test_resuming_changes_no_bit(policy, codec, size, tmp_path):
    """The checkpoint is of round 6 of 12, before the steps grow: they follow from the number."""
    tree = scheduled(
        GROWING,
        len(STEPS),
        participation=0.6,
        optimizer={"momentum": 0.9, "state": "keep", "warmup_rounds": 2},
        sync=SYNC[policy],
        codec=CODEC[codec],
        stragglers={"slow": 0.5},
    )
    for result in ranks(size).run(checkpoint_jobs.restored, tree, str(tmp_path)):
        assert result["differing"] == []


@pytest.mark.parametrize("codec", ["int8", *UNMASKED])
def test_coded_runs_have_the_same_bits_on_another_number_of_ranks(codec):
    tree = scheduled(GROWING, len(STEPS), codec=CODEC[codec])
    (alone,) = ranks(1).run(law_jobs.models, tree, len(STEPS))
    for rows in ranks(3).run(law_jobs.models, tree, len(STEPS)):
        assert np.array_equal(rows[-1]["anchor"], alone[-1]["anchor"])
