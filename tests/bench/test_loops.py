"""What the benchmarks compare is the same work."""

from bench.ours import Ours, experiment
from bench.plain import Plain
from bench.work import digits


def test_our_loop_and_the_plain_one_take_the_same_steps() -> None:
    work = digits(seed=2)
    ours, plain = Ours(experiment(work, {"name": "full"})), Plain(work, ready=True)
    lean = Plain(work, ready=False)
    for _ in range(2):
        for subject in (ours, plain, lean):
            subject.round()
    assert (ours.parameters() - plain.parameters()).abs().max() < 1e-5
    assert (lean.parameters() - plain.parameters()).abs().max() < 1e-5
