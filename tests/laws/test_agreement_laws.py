"""Laws of agreement: ranks that would exchange different values say so before they do."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import agreement_jobs as jobs
from tests.laws.test_state_laws import BASE, CODEC, SYNC, fits
from tests.products import sampled
from tests.ranks import ranks
from trainer.engine.agreement import Disagreement, dissenting
from trainer.engine.diagnosis import FAILED, explain
from trainer.exchange.digest import BITS, as_number, digest
from trainer.exchange.masks import CHUNK

CPU = torch.device("cpu")
AT = 3
MASKS = "which values travel"
CASES = [
    *((policy, "fp32", MASKS) for policy in ("apf", "gwpf", "gwpf-released")),
    ("gwpf", "int8", MASKS),
    ("gwpf-riding", "fp32", MASKS),
    ("full", "lowrank", "the bases of low rank"),
    ("gwpf-rows", "lowrank", f"{MASKS} and the bases of low rank"),
]


def tree_of(policy: str, codec: str) -> dict:
    assert fits("fedavg", policy, codec)
    sync = {"sync": SYNC[policy], "codec": CODEC[codec]}
    return BASE | sync | {"rounds": AT + 2, "checkpoint": {"every": AT - 1}}


@pytest.mark.parametrize("case,place", sampled(CASES, [(2, 0), (3, 0), (4, 2)]), ids=str)
def test_the_rank_that_holds_another_bit_is_named_by_all(case, place, tmp_path):
    (policy, codec, what), (size, which) = case, place
    tree = tree_of(policy, codec)
    whose = "ranks 0 and 1 disagree with each other"
    if size > 2:
        whose = f"rank {which} disagrees with the other ranks"
    for ended, message in ranks(size).run(jobs.flipped, tree, str(tmp_path), which, AT):
        assert ended == AT
        assert message.startswith(f"{whose} after round {AT} on {what}; give all ranks")
        assert message.endswith(f"from the checkpoint of round {AT - 1} with --resume RUN")


@pytest.mark.parametrize("evaluation", [{"every": 10}, {"model": "agreed"}], ids=str)
def test_so_it_is_without_an_evaluation_of_what_clients_hold_apart(evaluation, tmp_path):
    tree = tree_of("gwpf", "fp32") | {"evaluation": evaluation}
    for ended, message in ranks(3).run(jobs.flipped, tree, str(tmp_path), 1, AT):
        assert ended == AT
        assert message.startswith(f"rank 1 disagrees with the other ranks after round {AT} on")


@pytest.mark.parametrize("policy,codec,_", CASES)
def test_ranks_that_agree_go_on(policy, codec, _, tmp_path):
    told = ranks(3).run(jobs.flipped, tree_of(policy, codec), str(tmp_path), -1, AT)
    assert told == [(AT + 2, "")] * 3


def test_a_stage_is_compared_with_the_same_stage_of_the_other_pipelines(tmp_path):
    tree = tree_of("gwpf", "fp32") | {"parallel": {"pipeline": 2}}
    for ended, message in ranks(4).run(jobs.flipped, tree, str(tmp_path), 3, AT):
        assert ended == AT
        assert message.startswith("ranks 1 and 3 disagree with each other after round")


def test_it_is_the_environment_that_failed(tmp_path):
    assert explain(Disagreement("rank 1 disagrees"), tmp_path) == (FAILED, "rank 1 disagrees")


@pytest.mark.parametrize(
    "digests,odd,majority",
    [
        ([], [], True),
        ([7], [], True),
        ([7, 7, 7], [], True),
        ([7, 7, 8], [2], True),
        ([8, 7, 9, 7, 7], [0, 2], True),
        ([7, 8], [0, 1], False),
        ([7, 7, 8, 8], [0, 1, 2, 3], False),
        ([7, 7, 8, 9], [0, 1, 2, 3], False),
    ],
)
def test_the_majority_is_right(digests, odd, majority):
    assert dissenting(digests) == (odd, majority)


@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    type_=st.sampled_from([torch.bool, torch.int16, torch.float32, torch.float64]),
    draw=st.data(),
)
def test_any_bit_changes_a_digest(lengths, type_, draw):
    numbers = torch.Generator().manual_seed(0)
    vectors = [torch.randint(0, 2, (n,), generator=numbers).to(type_) for n in lengths]
    own = as_number(digest(vectors, CPU))
    assert 0 <= own < 2**BITS and own == as_number(digest([v.clone() for v in vectors], CPU))
    filled = [at for at, length in enumerate(lengths) if length]
    if filled:
        at = draw.draw(st.sampled_from(filled))
        data = vectors[at].view(torch.uint8)
        byte = draw.draw(st.integers(0, len(data) - 1))
        data[byte] ^= 1 if type_ is torch.bool else 1 << draw.draw(st.integers(0, 7))
        assert as_number(digest(vectors, CPU)) != own
    assert as_number(digest([*vectors, torch.zeros(1)], CPU)) != own


def test_a_digest_depends_on_where_a_vector_has_its_values():
    size = 8 * CHUNK + 3
    places = [0, 1, 8, 9, size // 2, 8 * CHUNK - 1, 8 * CHUNK, size - 1]
    seen = set()
    for place in places:
        mask = torch.zeros(size, dtype=torch.bool)
        mask[place] = True
        seen.add(as_number(digest([mask], CPU)))
    assert len(seen) == len(places)
