"""The quick part of a product uses every choice, beside different ones."""

from itertools import combinations, product

import pytest

from tests.products import sampled

CHOICES = (range(5), range(6), range(3))


def quick(cases):
    return [case.values for case in cases if not case.marks]


@pytest.mark.parametrize("times", [1, 2, 3])
def test_each_choice_is_in_the_quick_part(times):
    cases = sampled(*CHOICES, times=times)
    assert len({case.values for case in cases}) == len(cases) == 5 * 6 * 3
    assert len(quick(cases)) == 6 * times
    for place, choices in enumerate(CHOICES):
        for choice in choices:
            assert len([case for case in quick(cases) if case[place] == choice]) >= times


@pytest.mark.parametrize("times", [1, 2, 3])
def test_no_two_choices_meet_again_while_others_have_not_met(times):
    for one, other in combinations(range(len(CHOICES)), 2):
        met = {(case[one], case[other]) for case in quick(sampled(*CHOICES, times=times))}
        assert len(met) == min(6 * times, len(CHOICES[one]) * len(CHOICES[other]))


@pytest.mark.parametrize("times", [1, 2])
def test_of_what_does_not_fit_the_rest_still_uses_each_choice(times):
    def fits(a, b, c):
        return a <= b and (c or a == b == 4)

    there = [case for case in product(*CHOICES) if fits(*case)]
    chosen = quick(sampled(*CHOICES, times=times, fits=fits))
    assert set(chosen) <= set(there) and len(chosen) <= 7 * times
    for place, choices in enumerate(CHOICES):
        for choice in choices:
            has, of = (sum(case[place] == choice for case in cases) for cases in (chosen, there))
            assert has >= min(times, of) > 0
