"""Laws of pipelines beside each other: they exchange what single ranks would."""

import numpy as np
import pytest

from tests import pipeline_jobs as jobs
from tests import prose
from tests.laws.test_state_laws import CODEC, SYNC, fits
from tests.names import ALGORITHMS
from tests.products import sampled
from tests.ranks import ranks

NEAR = 1e-6  # the homework's own bound
BASE = {
    "seed": 5,
    "clients": 5,
    "data": {"partition": {"name": "dirichlet", "alpha": 1.0}},
    "schedule": {"batch_size": 30, "phases": [{"steps": 3}]},
    "optimizer": {"lr": 0.1, "momentum": 0.9, "clip_norm": 0.5, "weight_decay": 1e-3},
}
TWO = {"parallel": {"pipeline": 2, "microbatches": 3}}
FP64 = {"model": {"precision": "fp64"}, "codec": {"name": "fp64"}}
FOUR = {"parallel": {"pipeline": 4}}
FOUR_ON_TWO = {"parallel": {"pipeline": 2, "schedule": "interleaved"}}
OTHER = {"parallel": {"pipeline": 2, "layers": [4, 6]}}
DEEPER = {"model": {"name": "lenet"}, "data": {"resize": 28}}
CUT = {  # of tests.pipeline_jobs.for_digits
    2: "2 stages (7 + 3 layers) on 2 ranks",
    3: "3 stages (7 + 2 + 1 layers) on 3 ranks",
    4: "4 stages (4 + 3 + 2 + 1 layers)",
}
THREE = {"parallel": {"pipeline": 3, "microbatches": 3}}


def model(results):
    """The whole model, which the first rank has."""
    assert [bool(result["model"]) for result in results] == [True] + [False] * (len(results) - 1)
    return results[0]["model"]


def apart(one, other):
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def replicas_are_equal(results):
    """The ranks that hold the same stage hold the same bits; they are the only ones that must."""
    for result in results:
        first = next(other for other in results if other["stage"] == result["stage"])
        assert np.array_equal(first["own"], result["own"])
        assert np.array_equal(first["frozen"], result["frozen"])


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "interleaved"])
def test_two_pipelines_of_three_stages_are_one_process_with_the_joint_batch(schedule):
    """The homework's B2: six ranks, three microbatches each, six of one process's batch."""
    one_step = {"data": {"partition": {"name": "shared"}}, "optimizer": {"lr": 0.2}}
    both = (
        BASE | one_step | {"clients": 2, "schedule": {"batch_size": 15, "phases": [{"steps": 1}]}}
    )
    joint = both | {"clients": 1, "schedule": {"batch_size": 30, "phases": [{"steps": 1}]}}
    parallel = THREE["parallel"] | {"schedule": schedule}
    if schedule == "interleaved":  # the network has five layers with parameters
        parallel |= {"pipeline": 2}
    size = 2 * parallel["pipeline"]
    results = ranks(size).run(jobs.trained, both | {"parallel": parallel}, 8)
    (alone,) = ranks(1).run(jobs.trained, joint, 8)
    replicas_are_equal(results)
    assert apart(model(results), alone["model"]) < NEAR
    for result in results:
        assert result["accuracy"] == alone["accuracy"]
        assert result["loss"] == pytest.approx(alone["loss"], rel=1e-5)
        assert result["train_loss"] == pytest.approx(alone["train_loss"], rel=1e-5)
        assert sum(result["samples"]) == sum(alone["samples"]) and len(result["samples"]) == 2
        assert result["dense"] == 2 * alone["dense"]  # two clients upload
        assert result["payload"]["values"] == result["dense"]


@pytest.mark.parametrize(
    "algorithm,policy,codec",
    sampled(ALGORITHMS, SYNC, [name for name in CODEC if name != "lowrank-budget"], fits=fits),
)
def test_algorithms_policies_and_codecs_on_two_pipelines(algorithm, policy, codec):
    rounds = 5
    chosen = {"name": algorithm}
    if algorithm == "scaffold":
        chosen["controls"] = "option-2"
    tree = BASE | {"algorithm": chosen, "sync": SYNC[policy], "codec": CODEC[codec]}
    results = ranks(4).run(jobs.trained, tree | TWO, rounds)
    replicas_are_equal(results)
    assert all(np.isfinite(values).all() for values in model(results).values())
    if policy in ("gwpf", "gwpf-riding", "apf"):
        assert any(result["frozen"].any() for result in results), "nothing froze"
    if codec == "fp32" and policy in ("full", "cmfl"):
        (alone,) = ranks(1).run(jobs.trained, tree, rounds)
        assert apart(model(results), alone["model"]) < 4 * NEAR
        assert results[0]["payload"] == alone["payload"]
        assert results[0]["formed"] == alone["formed"]
    if algorithm == "scaffold":
        for stage in (0, 1):
            own = [result for result in results if result["stage"] == stage]
            kept = [control for result in own for control in result["controls"]]
            mean = sum(kept) / BASE["clients"]
            assert np.abs(own[0]["control"] - mean).max() < NEAR * max(1, np.abs(mean).max())


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": {"name": "scaffold", "controls": "fresh"}},
        {"algorithm": {"name": "scaffold", "controls": "option-1"}},
        {"algorithm": {"name": "fedsgd"}, "optimizer": {"lr": 0.1, "clip_norm": 0.1}},
        {"participation": 0.6, "optimizer": {"momentum": 0.9, "state": "keep", "nesterov": True}},
        {"schedule": {"batch_size": None, "phases": [{"epochs": 1}]}},
        {"evaluation": {"alignment": True, "batch_size": 50}},
        FP64,
        FP64 | {"optimizer": {"name": "adam", "lr": 0.01, "clip_norm": 0.1}},
        FP64 | {"optimizer": {"name": "adamw", "clip_norm": 0.1, "weight_decay": 0.1}},
        {"evaluation": {"model": "agreed"}},
    ],
)
def test_a_pipeline_trains_as_one_device_does(changes):
    """Also with batches that do not divide, server-side clipping and more than one exchange."""
    tree = BASE | changes
    results = ranks(3).run(jobs.trained, tree | THREE, 4)
    (alone,) = ranks(1).run(jobs.trained, tree, 4)
    assert apart(model(results), alone["model"]) < NEAR
    for result in results:
        assert result["loss"] == pytest.approx(alone["loss"], rel=1e-5)
        assert result["accuracy"] == alone["accuracy"]
        passes = result["passes"]
        assert 0 < passes.own < passes.all
        assert 0 < passes.ideal < passes.steps


def test_a_pipeline_learns_a_text_as_one_device_does(tmp_path):
    """Batches whose rows have different numbers of targets, cut into microbatches."""
    prose.folder(tmp_path / "text")
    tree = prose.tree(tmp_path / "text", model={"name": "llama-tiny"})
    results = ranks(3).run(jobs.trained, tree | THREE, 2)
    (alone,) = ranks(1).run(jobs.trained, tree, 2)
    assert apart(model(results), alone["model"]) < 10 * NEAR
    for result in results:
        assert result["loss"] == pytest.approx(alone["loss"], rel=1e-5)


@pytest.mark.parametrize("policy", ["apf", "gwpf", "gwpf-riding", "gwpf-rows"])
def test_the_stages_masks_are_those_of_one_device(policy):
    """If no threshold is tightened, which a stage decides for itself.

    With whole batches, and without a norm over the stages, not even an order of additions differs.
    """
    tree = BASE | {"sync": SYNC[policy] | {"tighten_at": 1}, "optimizer": {"momentum": 0.9}}
    results = ranks(2).run(jobs.trained, tree | {"parallel": {"pipeline": 2}}, 6)
    (alone,) = ranks(1).run(jobs.trained, tree, 6)
    assert 0 < alone["frozen"].mean() < 1
    for name in ("frozen", "own"):
        assert np.array_equal(np.concatenate([r[name] for r in results]), alone[name])
    assert apart(model(results), alone["model"]) == 0


def test_stages_freeze_by_themselves():
    """GWPF judges, votes and thaws on each stage; both replicas of a stage hold the same mask."""
    tree = BASE | {"sync": SYNC["gwpf"] | {"tighten_at": 0.2}}
    results = ranks(4).run(jobs.trained, tree | TWO, 8)
    replicas_are_equal(results)
    shares = [float(result["frozen"].mean()) for result in results[:2]]
    assert min(shares) > 0 and shares[0] != shares[1]
    assert results[0]["payload"]["values"] < results[0]["dense"]
    assert results[0]["payload"]["votes"] > 0


@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_a_stop_at_any_rank_is_known_to_all_in_the_same_round(which):
    assert ranks(4).run(jobs.told_to_stop, BASE | TWO, which) == [[False, True, False]] * 4


@pytest.mark.parametrize(
    "policy,codec",
    sampled(SYNC, ["fp32", "int8", "sign"], fits=lambda *chosen: fits("scaffold", *chosen)),
)
def test_a_checkpoint_of_pipelines_resumes_to_the_same_bits(policy, codec, tmp_path):
    tree = BASE | {
        "algorithm": {"name": "scaffold", "controls": "option-2"},
        "sync": SYNC[policy],
        "codec": CODEC[codec],
        "checkpoint": {"keep": 3},
    }
    assert ranks(4).run(jobs.resumed, tree | TWO, str(tmp_path)) == [[]] * 4


@pytest.mark.parametrize(
    "before,after,end",
    [
        ((4, TWO), (2, TWO), "round 2, True"),
        ((2, TWO), (4, TWO), "round 2, True"),
        ((2, TWO), (1, {}), f"the state of {CUT[2]}, and the run now has 1 stage;"),
        ((1, {}), (2, TWO), f"the state of 1 stage, and the run now has {CUT[2]};"),
        ((3, THREE), (2, TWO), f"the state of {CUT[3]}, and the run now has {CUT[2]};"),
        ((4, FOUR), (2, FOUR_ON_TWO), f"of {CUT[4]} on 4 ranks, and the run now has {CUT[4]} on 2"),
        ((2, TWO), (2, OTHER), f"parallel.layers: the checkpoint has the state of {CUT[2]}, and"),
        ((2, TWO), (2, TWO | DEEPER), "model.name: is digits-cnn in this run; the saved state"),
    ],
)
def test_another_number_of_pipelines_resumes_another_number_of_stages_does_not(
    before, after, end, tmp_path
):
    (old, then), (new, now) = before, after
    tree = BASE | {"sync": SYNC["gwpf"], "algorithm": {"name": "scaffold"}}
    ranks(old).run(jobs.saved_then_resumed, tree | then, {}, str(tmp_path))
    ends = ranks(new).run(jobs.saved_then_resumed, None, tree | now, str(tmp_path))
    assert all(end in told for told in ends), ends
