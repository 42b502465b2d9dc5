"""Low rank on real ranks: what factors lose, what they cost, and what all ranks agree on."""

from itertools import pairwise
from math import ceil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests import bounds
from tests.exchange.messages import LAYOUT, factored
from tests.ranks import ranks
from trainer.exchange.message import Vector
from trainer.exchange.ragged import Ragged
from trainer.exchange.reductions.factors import tables
from trainer.exchange.reductions.low_rank import orthonormal

CLIENTS, ROUNDS = 4, 3
PLAIN = {"rank": 2, "bits": 32}
MATRICES = {"conv": (6, 45), "fc": (40, 24), "last": (3, 4)}


def noise(seed: int = 0) -> list[Tensor]:
    """Updates of full rank, of each client in each round."""
    draws = torch.Generator().manual_seed(seed)
    return [torch.randn(ROUNDS, LAYOUT.size, generator=draws) for _ in range(CLIENTS)]


def thin(rank: int) -> list[Tensor]:
    """Updates whose matrices have this rank, and one column space for all clients and rounds."""
    draws = torch.Generator().manual_seed(1)
    left = {name: torch.randn(n, rank, generator=draws) for name, (n, _) in MATRICES.items()}
    sent = noise()
    for rows in sent:
        for row in rows:
            for piece in LAYOUT.pieces:
                if piece.name in MATRICES:
                    right = torch.randn(rank, MATRICES[piece.name][1], generator=draws)
                    row[piece.place] = (left[piece.name] @ right).flatten()
    return sent


def mean(sent: list[Tensor], number: int) -> np.ndarray:
    return np.mean([rows[number].double().numpy() for rows in sent], axis=0)


def test_updates_of_low_rank_arrive_whole():
    sent = thin(2)
    (found,) = ranks(1).run(factored, PLAIN, sent, ROUNDS)
    for number, answer in enumerate(found):
        off = np.abs(answer["mean"]["delta"] - mean(sent, number)).max()
        assert off < bounds.of_sums(60, float(np.abs(mean(sent, number)).max()))
    noisy = noise()
    (found,) = ranks(1).run(factored, PLAIN, noisy, 1)
    assert np.abs(found[0]["mean"]["delta"] - mean(noisy, 0)).max() > 0.1


def test_what_has_no_smaller_factors_is_not_factored():
    assert [LAYOUT.pieces[i].name for i in (0, 2)] == ["conv", "fc"]
    kept = {table.place.start for table in tables(LAYOUT, 2) if table.rank}
    assert kept == {LAYOUT.pieces[0].place.start, LAYOUT.pieces[2].place.start}
    assert not any(table.rank for table in tables(LAYOUT, 1000))
    sent = noise()
    (found,) = ranks(1).run(factored, {"rank": 1000, "bits": 32}, sent, 1)
    assert np.abs(found[0]["mean"]["delta"] - mean(sent, 0)).max() < bounds.of_sums(5, 3)


@pytest.mark.parametrize("bits", [4, 8, 32])
def test_the_mean_is_that_of_what_clients_are_told(bits):
    """But for the coding of the mean, which fp32 has none of."""
    sent = noise()
    (found,) = ranks(1).run(factored, {"rank": 2, "bits": bits}, sent, ROUNDS)
    for answer in found:
        told = np.mean([answer["told"][c]["delta"] for c in range(CLIENTS)], axis=0)
        off = np.abs(answer["mean"]["delta"] - told).max()
        assert off < {4: 0.5, 8: 0.05, 32: 1e-5}[bits] * np.abs(told).max()


def test_a_sum_of_what_clients_keep_comes_down_uncoded():
    control = Vector("control", leftover="again", over="everyone")
    sent = noise()
    (found,) = ranks(1).run(factored, {"rank": 2}, sent, ROUNDS, [control])
    for answer in found:
        told = sum(answer["told"][c]["control"].astype(np.float64) / 8 for c in range(CLIENTS))
        assert np.abs(answer["mean"]["control"] - told).max() < bounds.of_sums(60, 3)


@pytest.mark.parametrize("bits", [4, 32])
def test_all_ranks_have_the_same_bits_however_many_they_are(bits):
    sent, settings = noise(), {"rank": 2, "bits": bits}
    (alone,) = ranks(1).run(factored, settings, sent, ROUNDS)
    for size in (2, 3, 4):
        for answers in ranks(size).run(factored, settings, sent, ROUNDS):
            for one, other in zip(alone, answers, strict=True):
                assert np.array_equal(one["mean"]["delta"], other["mean"]["delta"])
                for client, told in other["told"].items():
                    assert np.array_equal(told["delta"], one["told"][client]["delta"])


@pytest.mark.parametrize("bits", [4, 8, 32])
@pytest.mark.parametrize("rank", [1, 2])
def test_bytes_are_those_of_the_formula_and_do_not_depend_on_values(rank, bits):
    """n values take n bits / 8 bytes, and 2 for each block of 64 of a factor or a bias."""

    def coded(values: int, width: int) -> int:
        return ceil(values * width / 8) + (0 if width == 32 else 2 * ceil(values / 64))

    sides = {1: [6, 45, 40, 24, 3, 4], 2: [6, 45, 40, 24]}[rank]
    left, right = sides[::2], sides[1::2]
    rest = [6] if rank == 1 else [6, 12]  # biases, and the matrix that is smaller than factors
    own = sum(coded(rank * side, bits) for side in left + right)
    own += sum(coded(values, bits) for values in rest)
    for sent in (noise(), [torch.zeros_like(rows) for rows in noise()]):
        (found,) = ranks(1).run(factored, {"rank": rank, "bits": bits}, sent, 1)
        assert found[0]["payload"] == CLIENTS * own
        assert found[0]["formed"] == CLIENTS


def test_an_update_of_zero_stays_zero_and_the_next_one_is_not_lost():
    sent = thin(1)
    for rows in sent:
        rows[0].zero_()
    (found,) = ranks(1).run(factored, {"rank": 2, "bits": 32}, sent, ROUNDS)
    assert not found[0]["mean"]["delta"].any()
    for number in (1, 2):
        off = np.abs(found[number]["mean"]["delta"] - mean(sent, number)).max()
        assert off < bounds.of_sums(60, float(np.abs(mean(sent, number)).max()))


KEPT = {  # rows of each tensor that travel
    "some": {"conv": [0, 3, 4], "bias": [1, 5], "fc": [*range(7, 39)], "last": [2]},
    "one": {"conv": [5], "bias": [], "fc": [0], "last": [0, 1, 2]},
    "none": {"conv": [], "bias": [0], "fc": [], "last": []},
}


def of_rows(kept: dict[str, list[int]]) -> Tensor:
    mask = torch.zeros(LAYOUT.size, dtype=torch.bool)
    for piece in LAYOUT.pieces:
        mask[piece.place].view(piece.shape[0], -1)[kept[piece.name]] = True
    return mask


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("bits", [4, 32])
def test_rows_that_are_left_out_are_zero_and_the_others_arrive(kept, bits):
    """If these are of low rank, the whole of them; of a single row there is one factor."""
    sent, mask = thin(2), of_rows(KEPT[kept])
    settings = {"rank": 2, "bits": bits}
    answers = ranks(3).run(factored, settings, sent, ROUNDS, (), 0, mask)
    for number in range(1, ROUNDS):
        expected, found = mean(sent, number), answers[0][number]["mean"]["delta"]
        for other in answers[1:]:
            assert np.array_equal(other[number]["mean"]["delta"], found)
        assert not found[~mask.numpy()].any()
        if bits == 32:
            off = np.abs(found - expected)[mask.numpy()]
            assert off.max(initial=0) < bounds.of_sums(60, float(np.abs(expected).max()))
        else:
            assert np.abs(found).max() > 0
    (alone,) = ranks(1).run(factored, settings, sent, ROUNDS, (), 0, mask)
    for one, other in zip(alone, answers[0], strict=True):
        assert np.array_equal(one["mean"]["delta"], other["mean"]["delta"])


@pytest.mark.parametrize("kept", KEPT)
def test_bytes_are_those_of_the_rows_that_travel(kept):
    def coded(lengths: list[int], width: int) -> int:
        """Of vectors in one buffer: values side by side, blocks of their own."""
        return ceil(sum(lengths) * width / 8) + sum(2 * ceil(values / 64) for values in lengths)

    rows = {name: len(own) for name, own in KEPT[kept].items()}
    rank = {name: min(2, rows[name]) for name in ("conv", "fc")}
    own = coded([rows["bias"], 4 * rows["last"]], 4)
    own += coded([r * rows[name] for name, r in rank.items()], 4)
    own += coded([r * MATRICES[name][1] for name, r in rank.items()], 4)
    args = (factored, {"rank": 2}, noise(), ROUNDS, (), 0, of_rows(KEPT[kept]))
    (found,) = ranks(1).run(*args)
    assert found[2]["payload"] - found[1]["payload"] == CLIENTS * own


def test_what_leaves_single_values_out_is_no_row():
    mask = of_rows(KEPT["some"])
    mask[1] = False
    with pytest.raises(AssertionError, match="whole rows"):
        ranks(1).run(factored, {"rank": 2}, noise(), ROUNDS, (), 0, mask)


def test_votes_ride_with_the_first_of_both_factors():
    sent = noise()
    plain = ranks(3).run(factored, {"rank": 2}, sent, ROUNDS)
    voted = ranks(3).run(factored, {"rank": 2}, sent, ROUNDS, (), 77)
    for number in range(ROUNDS):
        total = sum(found[number]["votes"] for found in voted)
        assert 0 < (total >= 3).sum() < 77
        for before, found in zip(plain, voted, strict=True):
            assert np.array_equal(found[number]["decided"], total >= 3)
            assert np.array_equal(found[number]["mean"]["delta"], before[number]["mean"]["delta"])


def test_what_is_not_finite_arrives_as_that():
    sent = noise()
    sent[1][0][7] = torch.nan
    (found,) = ranks(1).run(factored, {"rank": 2}, sent, 1)
    assert not np.isfinite(found[0]["mean"]["delta"]).all()


def test_columns_are_orthonormal_and_those_that_others_span_are_replaced():
    draws = torch.Generator().manual_seed(0)
    other = torch.eye(9)[:, 6:]
    q = orthonormal(torch.randn(9, 3, generator=draws), other)
    assert torch.allclose(q.T @ q, torch.eye(3), atol=1e-6)
    assert torch.equal(orthonormal(torch.zeros(9, 3), other), other)
    q = orthonormal(torch.ones(9, 3), other)
    assert torch.allclose(q[:, 0].abs(), torch.full((9,), 1 / 3))
    assert torch.equal(q[:, 1:], other[:, 1:])
    assert q.is_contiguous()


def test_the_basis_turns_to_the_largest_directions():
    """The same update in each round: the error falls to that of its best matrix of rank 2."""
    rows = noise()[0][:1]
    rows[0][LAYOUT.pieces[2].place].view(40, 24).mul_(0.7 ** torch.arange(24))
    sent = [rows.expand(12, -1)]
    (found,) = ranks(1).run(factored, {"rank": 2, "bits": 32}, sent, 12)
    at = LAYOUT.pieces[2].place
    matrix = rows[0][at].view(40, 24).double()
    best = float(torch.linalg.svdvals(matrix)[2:].norm())
    errors = [
        float((torch.from_numpy(a["mean"]["delta"][at]).view(40, 24) - matrix).norm())
        for a in found
    ]
    assert errors[0] > 1.1 * best and errors[-1] < 1.001 * best
    assert all(b < a + 1e-6 for a, b in pairwise(errors))


@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    bits=st.sampled_from([4, 8, 32]),
    draw=st.data(),
)
def test_ragged_blocks_may_be_cut_at_any_of_them(lengths, bits, draw):
    """Each share has the bytes that it says, and is coded alike by whoever holds it."""
    code = Ragged(lengths, 16, bits)
    vectors = [torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in lengths]
    joined = code.padded(vectors, torch.zeros(1))
    inner = draw.draw(st.lists(st.integers(0, code.count // 16), max_size=4))
    cuts = [0, *sorted(16 * at for at in inner), code.count]
    coded, spans = code.encode(joined, cuts, ()), list(pairwise(cuts))
    assert [part.numel() for part in coded] == [code.size(b - a, a) for a, b in spans]
    for part, (a, b) in zip(coded, spans, strict=True):
        assert torch.equal(part, code.encode(joined[a:b], [a, b], ())[0])
    got = torch.cat([code.decode(p, b - a, a) for p, (a, b) in zip(coded, spans, strict=True)])
    step = {4: 1 / 14, 8: 1 / 254, 32: 0.0}[bits] * (1 + 2.0**-7)
    for sent, back in zip(vectors, code.split(got), strict=True):
        if len(sent):
            assert (sent - back).abs().max() <= step * sent.abs().max() + 1e-6
