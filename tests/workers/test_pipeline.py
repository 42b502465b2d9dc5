"""A pipeline's stages compute what one device does, whatever the schedule; on gloo processes."""

import math

import pytest

from tests import pipeline_jobs as jobs
from tests.products import sampled
from tests.ranks import ranks
from trainer.config.parallel import Parallel
from trainer.workers.pipeline import microbatches

SCHEDULES = ("gpipe", "1f1b", "interleaved")
NEAR = 1e-6  # the homework's own bound


def settings(stages: int, count: int, schedule: str) -> dict[str, object]:
    return {"pipeline": stages, "microbatches": count, "schedule": schedule}


def fitting(stages: int, schedule: str) -> list[int]:
    """The numbers of microbatches from 1 to 4 that a schedule takes."""
    shape = Parallel(pipeline=stages, schedule=schedule)
    return [count for count in range(1, 5) if shape.fits(count)]


@pytest.mark.parametrize(
    "name,stages,schedule", sampled(["mlp", "cnn", "tokens"], [2, 3, 4], SCHEDULES)
)
def test_gradients_of_microbatches_are_those_of_the_batch(name, stages, schedule):
    """For 1 to 4 microbatches, batches that divide into them, and batches that do not."""
    counts = fitting(stages, schedule)
    cases = [(settings(stages, count, schedule), rows) for count in counts for rows in (12, 7)]
    results = ranks(stages).run(jobs.gradients, name, cases)
    for case in zip(*results, strict=True):
        assert max(stage["apart"] for stage in case) < NEAR
        assert [stage["loss"] < NEAR for stage in case] == [True] * stages
        assert sum(stage["last"] for stage in case) == 1
        names = [name for stage in case for name in stage["names"]]
        assert len(names) == len(set(names)) == case[0]["parameters"]
        for stage in case:
            right, loss, count = stage["scores"]
            if stage["last"]:
                assert (right, count) == stage["single"][::2]
                assert math.isclose(loss, stage["single"][1], rel_tol=1e-5)
            else:
                assert (right, loss, count) == (0, 0, 0)
            assert math.isclose(stage["total"], stage["square"], rel_tol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("stages", [2, 3])
def test_what_is_counted_is_what_is_handed_over_and_nothing_is_pickled(stages, schedule):
    count, steps = (2 * stages, 3)
    parallel = settings(stages, count, schedule)
    results = ranks(stages).run(jobs.sent, parallel, steps)
    for result in results:
        assert result["counted"] == result["handed"] > 0
    between = Parallel(**parallel).stages - 1
    # (S - 1) M activations, and as many gradients (the homework's B1: 12 for S = M = 3)
    assert sum(result["messages"] for result in results) == 2 * steps * between * count


def test_stages_send_what_training_computes_where_evaluation_computes_in_another_type():
    """An encoder layer returns bf16 in evaluation only; its dropout and statistics as ever."""
    results = ranks(2).run(jobs.encoded, {"pipeline": 2})
    assert all(result["same"] and result["moved"] for result in results)
    assert results[1]["scores"][2] > 0


def test_a_failure_of_the_loss_is_not_the_loss_of_a_rank():
    told = ranks(2).run(jobs.without_memory, {"pipeline": 2})
    assert told == ["", "RuntimeError: DefaultCPUAllocator: can't allocate memory"]


@pytest.mark.parametrize("schedule", ["gpipe", "interleaved"])
def test_only_the_first_stages_rank_makes_inputs(schedule):
    parallel = {"pipeline": 2, "schedule": schedule}
    assert ranks(2).run(jobs.with_inputs, parallel) == [True, False]


def test_a_schedule_that_is_dropped_is_told_once():
    told = ranks(2).run(jobs.of_many_shapes, {"pipeline": 2})
    assert [len(lines) for lines in told] == [1, 0]
    assert told[0][0].startswith("batches have more than 16 shapes")


def test_a_batch_has_as_many_microbatches_as_it_divides_into():
    plain = Parallel(pipeline=3, microbatches=4)
    assert [microbatches(rows, plain) for rows in (1, 2, 3, 4, 6, 7, 8, 9)] == [
        1, 2, 3, 4, 3, 1, 4, 3,
    ]  # fmt: skip
    looped = Parallel(pipeline=2, microbatches=6, schedule="interleaved")
    assert [microbatches(rows, looped) for rows in (5, 10, 12)] == [1, 2, 6]


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("stages,count", [(2, 2), (2, 4), (3, 3), (3, 6), (4, 4)])
def test_many_steps_do_not_end_in_a_deadlock(stages, count, schedule):
    steps = 5000 if (stages, count, schedule) == (3, 3, "gpipe") else 500  # the homework's B1: 5000
    losses = ranks(stages).run(jobs.many_steps, settings(stages, count, schedule), steps)
    assert 0 < max(losses) < 1.5
