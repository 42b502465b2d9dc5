"""Laws of divergence: what is not finite ends all ranks alike, and replaces no checkpoint."""

import json
from pathlib import Path

import pytest

from tests import divergence_jobs as jobs
from tests.jobs import history
from tests.laws.test_state_laws import BASE, CODEC, SYNC, fits
from tests.names import ALGORITHMS
from tests.products import sampled
from tests.ranks import ranks

AT, CLIENT = 4, 2
WHAT = {
    "loss": f"the training loss of client {CLIENT} is not finite",
    "update": f"the update of client {CLIENT} is not finite",
    "kept": f"the state that client {CLIENT} keeps is not finite",
    "model": "tensor 0.weight of the agreed model is not finite",
    "test": "the loss on the test set is not finite",
}


def tree_of(policy: str, codec: str, algorithm: str) -> dict:
    return BASE | {
        "rounds": AT + 2,
        "algorithm": {"name": algorithm},
        "sync": SYNC[policy],
        "codec": CODEC[codec],
        "checkpoint": {"every": 1},
    }


def strict(text: str) -> object:
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


@pytest.mark.parametrize(
    "algorithm,policy,codec,kind",
    sampled(
        ALGORITHMS,
        SYNC,
        ["fp32", "bf16-feedback", "int8", "sign", "sparse", "randomk", "lowrank"],
        WHAT,
        fits=lambda algorithm, policy, codec, _: fits(algorithm, policy, codec),
    ),
)
def test_all_ranks_end_in_the_round_and_the_last_checkpoint_stays(
    algorithm, policy, codec, kind, tmp_path
):
    tree = tree_of(policy, codec, algorithm)
    if policy == "streaming":  # so that the model's first tensor travels in round AT
        tree["sync"] = SYNC[policy] | {"pattern": "sequential"}
    ends_alike(tree, kind, 2, tmp_path)


@pytest.mark.parametrize("kind,size", sampled(WHAT, [1, 4]))
def test_on_any_number_of_ranks(kind, size, tmp_path):
    ends_alike(tree_of("gaia", "int8", "scaffold"), kind, size, tmp_path)


def ends_alike(tree: dict, kind: str, size: int, tmp_path: Path) -> None:
    """In the same round on every rank, with the same message and the checkpoint of before."""
    results = ranks(size).run(jobs.spoiled, tree, str(tmp_path), kind, AT, CLIENT)
    for result in results:
        assert result["round"] == AT
        assert result["message"].startswith(f"diverged in round {AT}: {WHAT[kind]}; try ")
        assert "from the checkpoint of round" in result["message"]
        assert result["message"] == results[0]["message"]
        assert result["before"] == result["after"] and len(result["after"]) > 1
    rows = [strict(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["round"] for row in rows] == list(range(1, AT + 1))
    if kind in ("loss", "test"):
        assert rows[-1][f"{'train' if kind == 'loss' else 'test'}_loss"] is None


def test_a_final_model_that_is_not_finite_finishes_no_run(tmp_path):
    """Only what clients hold apart, averaged in at the end, can make it so."""
    tree = tree_of("gaia", "fp32", "fedavg") | {"rounds": AT, "evaluation": {"model": "agreed"}}
    for result in ranks(2).run(jobs.spoiled, tree, str(tmp_path), "final", AT, CLIENT):
        assert result["message"].startswith(f"diverged in round {AT}: the loss on the test set")
    rows = [strict(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row.get("final", False) for row in rows] == [False] * AT
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    "codec,what",
    [
        ("bf16", "tensor 0.weight of the agreed model is not finite"),
        ("bf16-feedback", f"the state that client {CLIENT} keeps is not finite"),
    ],
)
def test_a_value_that_the_format_cannot_hold(codec, what, tmp_path):
    """The update of the client was finite. What it keeps is its update less an infinity."""
    tree = tree_of("full", codec, "fedavg")
    for result in ranks(2).run(jobs.spoiled, tree, str(tmp_path), "overflow", AT, CLIENT):
        assert f"diverged in round {AT}: {what}; " in result["message"]
        assert "codec.name=fp32" in result["message"]


@pytest.mark.parametrize("kind", ["loss", "update", "model", "test"])
def test_warn_goes_on_with_the_checkpoint_that_was_good(kind, tmp_path):
    """Asked to stop in that round, it stops; what it would resume from is the round before."""
    tree = tree_of("full", "fp32", "fedavg") | {"divergence": "warn"}
    for result in ranks(2).run(jobs.spoiled, tree, str(tmp_path), kind, AT, CLIENT):
        assert (result["round"], result["message"]) == (AT, "")
        assert result["before"] == result["after"] and len(result["after"]) > 1
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        strict(line)


@pytest.mark.parametrize(
    "policy,codec,algorithm",
    [("full", "fp32", "fedavg"), ("gwpf", "bf16-feedback", "scaffold"), ("cmfl", "int8", "fedga")],
)
def test_watching_changes_no_bit_of_a_finite_run(policy, codec, algorithm):
    tree = tree_of(policy, codec, algorithm)
    watched, unwatched = (ranks(2).run(job, tree, 5)[0] for job in (history, jobs.unwatched))
    for a, b in zip(watched, unwatched, strict=True):
        assert a["anchor"].tobytes() == b["anchor"].tobytes()
        assert a["buffers"].tobytes() == b["buffers"].tobytes()
        assert {k: a.get(k) for k in ("payload", "wire")} == {
            k: b.get(k) for k in ("payload", "wire")
        }
