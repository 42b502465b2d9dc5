"""A run that is stopped and resumed ends with the same bits: residuals, controls, files, moves."""

import pytest

from tests import checkpoint_jobs
from tests.laws.test_state_laws import BASE, CODEC, SYNC, fits
from tests.products import sampled
from tests.ranks import ranks


@pytest.mark.parametrize(
    "policy,codec,algorithm,memory,size",
    sampled(
        [name for name in SYNC if name != "gwpf-released"],  # which has no partial participation
        ["fp32", "bf16-feedback", "int8", "lowrank"],
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
