"""Laws of formats on the wire and of dealing clients to ranks, on real gloo processes."""

from itertools import product

import numpy as np
import pytest

from tests import bounds, law_jobs
from tests.laws.test_state_laws import BASE, CODEC, SYNC, UNMASKED, fits
from tests.names import ALGORITHMS
from tests.products import sampled
from tests.ranks import ranks
from trainer.exchange import masks

ROUNDS = 5
THRESHOLDS = [name for name in SYNC if name not in ("full", "cmfl")]  # of each coordinate
LOSSY = ["bf16", "bf16-feedback", "int8", "int8-lossy", "int4", "fp8", "sign", "sign-lossy"]
LOSSY += ["sparse", "sparse-lossy", "randomk-int8", "lowrank", "lowrank-lossy"]


def equal(one: list[dict[str, np.ndarray]], other: list[dict[str, np.ndarray]]) -> bool:
    """The same models, buffers and masks in each round, bit for bit."""
    for a, b in zip(one, other, strict=True):
        if (a["mask"] is None) != (b["mask"] is None):
            return False
        if not all(np.array_equal(a[k], b[k]) for k in a if a[k] is not None):
            return False
    return True


@pytest.mark.parametrize(
    "algorithm,policy,codec",
    sampled(ALGORITHMS, SYNC, LOSSY, fits=fits),
)
def test_a_coded_run_has_the_same_bits_on_any_number_of_ranks(algorithm, policy, codec):
    """And on each: owners add clients in their order, so neither W nor the dealing matters."""
    tree = BASE | {
        "algorithm": {"name": algorithm},
        "sync": SYNC[policy],
        "codec": CODEC[codec],
        "participation": 1.0 if policy == "gwpf-released" else 0.8,
    }
    alone = ranks(1).run(law_jobs.models, tree, ROUNDS)[0]
    for size, placement in ((2, "dealt"), (4, "dealt"), (4, "fixed")):
        for rows in ranks(size).run(law_jobs.models, tree | {"placement": placement}, ROUNDS):
            assert equal(alone, rows)


@pytest.mark.parametrize("algorithm,policy,codec", sampled(ALGORITHMS, SYNC, CODEC, fits=fits))
def test_no_bit_depends_on_how_long_a_piece_is(algorithm, policy, codec, monkeypatch):
    """A vector goes through an exchange in pieces that fit the cache; 192 values are few blocks."""
    tree = BASE | {"algorithm": {"name": algorithm}, "sync": SYNC[policy], "codec": CODEC[codec]}
    whole = law_jobs.models(tree, ROUNDS)
    monkeypatch.setattr(masks, "CHUNK", 192)
    assert equal(whole, law_jobs.models(tree, ROUNDS))


@pytest.mark.parametrize(
    "policy,codec",
    [
        *product(["gwpf", "gwpf-riding", "streaming", "gaia", "cmfl", "apf"], ["int8"]),
        *product(["full"], UNMASKED),
        ("cmfl", "sign"),
        ("cmfl", "lowrank"),
        *product(["apf-rows", "gwpf-rows"], ["lowrank"]),
    ],
)
def test_ranks_without_participants_take_part_in_every_exchange(policy, codec):
    tree = BASE | {
        "algorithm": {"name": "scaffold"},
        "sync": SYNC[policy],
        "codec": CODEC[codec],
        "participation": 0.4,
    }
    alone = ranks(1).run(law_jobs.models, tree, 2 * ROUNDS)[0]
    for rows in ranks(4).run(law_jobs.models, tree, 2 * ROUNDS):
        assert equal(alone, rows)


@pytest.mark.parametrize("codec", LOSSY)
def test_so_has_a_network_with_batch_statistics(codec):
    tree = BASE | {"codec": CODEC[codec]}
    alone = ranks(1).run(law_jobs.models, tree, ROUNDS, "", True)[0]
    assert equal(alone, ranks(2).run(law_jobs.models, tree, ROUNDS, "", True)[0])


@pytest.mark.parametrize("policy,size", sampled([name for name in SYNC if name != "gaia"], [1, 2]))
def test_error_feedback_of_what_loses_nothing_changes_no_bit(policy, size):
    tree = BASE | {"sync": SYNC[policy], "placement": "fixed"}
    plain = ranks(size).run(law_jobs.models, tree, ROUNDS)[0]
    assert equal(plain, ranks(size).run(law_jobs.models, tree, ROUNDS, "error feedback")[0])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_owners_of_fp32_values_are_the_plain_sum(algorithm):
    tree = BASE | {"algorithm": {"name": algorithm}}
    plain = ranks(1).run(law_jobs.models, tree, ROUNDS)[0]
    assert equal(plain, ranks(1).run(law_jobs.models, tree, ROUNDS, "owners")[0])
    two = ranks(2).run(law_jobs.models, tree, ROUNDS, "owners")[0]
    assert equal(plain, two), "owners add in the clients' order, as one rank does"


def test_int8_stays_close_to_fp32_and_closer_with_feedback():
    exact = ranks(2).run(law_jobs.models, BASE, 20)[0][-1]["anchor"]
    away = {
        name: np.abs(
            ranks(2).run(law_jobs.models, BASE | {"codec": CODEC[name]}, 20)[0][-1]["anchor"]
            - exact
        ).mean()
        for name in ("int8", "int8-lossy")
    }
    assert 0 < away["int8"] < np.abs(exact).mean() / 20
    assert away["int8"] < away["int8-lossy"]


@pytest.mark.parametrize("algorithm,policy", sampled(ALGORITHMS, SYNC, fits=fits))
def test_dealing_changes_no_more_than_the_order_of_sums(algorithm, policy):
    """What a client does depends on no rank; fp32 sums do, by their order."""
    tree = BASE | {"algorithm": {"name": algorithm}, "sync": SYNC[policy]}
    dealt = ranks(4).run(law_jobs.models, tree, 2)[0]
    fixed = ranks(4).run(law_jobs.models, tree | {"placement": "fixed"}, 2)[0]
    alone = ranks(1).run(law_jobs.models, tree, 2)[0]
    bound = bounds.of_sums(2 * (BASE["clients"] + 3 * 32), np.abs(alone[-1]["anchor"]).max())
    for other in (dealt, fixed):
        # a choice within rounding of its threshold may fall to either side
        apart = np.abs(other[-1]["anchor"] - alone[-1]["anchor"]) > bound
        assert apart.mean() < (0.002 if policy in THRESHOLDS else 1e-9)
