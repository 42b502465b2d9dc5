"""What the benchmarks compare is the same work."""

from bench.ours import Ours, experiment
from bench.plain import Plain
from bench.work import digits
from tests import bounds


def test_our_loop_and_the_plain_one_take_the_same_steps() -> None:
    work = digits(seed=2)
    ours, plain = Ours(experiment(work, {"name": "full"})), Plain(work, ready=True)
    lean = Plain(work, ready=False)
    for _ in range(2):
        for subject in (ours, plain, lean):
            subject.round()
    # of a weight in each round: the samples of each step, then a mean over clients
    additions = 2 * (work.steps * (work.batch_size + 1) + work.clients)
    rounding = bounds.of_sums(additions, plain.parameters().abs().max())
    # and one sample whose gradient, of norm 1, goes the other way at a ReLU's kink
    rounding += work.lr / work.batch_size / work.clients
    assert (ours.parameters() - plain.parameters()).abs().max() < rounding
    assert (lean.parameters() - plain.parameters()).abs().max() < rounding
