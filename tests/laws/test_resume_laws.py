"""A run that is stopped and resumed ends with the same bits: residuals, controls, files, moves."""

import numpy as np
import pytest

from tests import checkpoint_jobs, law_jobs
from tests.laws.test_state_laws import BASE, CODEC, SYNC, UNMASKED, fits
from tests.products import sampled
from tests.ranks import ranks


@pytest.mark.parametrize(
    "policy,codec,algorithm,memory,size",
    sampled(
        [name for name in SYNC if name != "gwpf-released"],  # which has no partial participation
        ["fp32", "bf16-feedback", "int8", "sign", "sparse", "randomk", "lowrank", "lowrank-ahead"],
        ["fedavg", "scaffold", "fedga"],
        [None, 0],
        [1, 2, 4],
        fits=lambda policy, codec, algorithm, *_: fits(algorithm, policy, codec),
    ),
)
def test_resuming_changes_no_bit(policy, codec, algorithm, memory, size, tmp_path):
    tree = BASE | {
        "participation": 0.6,
        "algorithm": {"name": algorithm},
        "optimizer": {"momentum": 0.9, "state": "keep", "lr": 0.02},
        "sync": SYNC[policy],
        "codec": CODEC[codec],
        "client_memory": memory,
    }
    results = ranks(size).run(checkpoint_jobs.restored, tree, str(tmp_path))
    for result in results:
        assert result["differing"] == []
    assert sum(result["records"] for result in results) == BASE["clients"]


@pytest.mark.parametrize("codec,sizes", sampled(UNMASKED, [(3, 1), (2, 4)]), ids=str)
def test_coded_runs_have_the_same_bits_on_another_number_of_ranks(codec, sizes, tmp_path):
    """What owners keep of means follows its positions to whoever owns them then."""
    before, after = sizes
    tree = BASE | {"rounds": 8, "participation": 0.6, "codec": CODEC[codec]}
    ranks(before).run(checkpoint_jobs.saved_after, tree, 4, str(tmp_path))
    resumed = ranks(after).run(checkpoint_jobs.resumed_for, tree, 4, str(tmp_path))
    (through,) = ranks(1).run(law_jobs.models, tree, 8)
    for result in resumed:
        assert np.array_equal(result["end"], through[-1]["anchor"])
