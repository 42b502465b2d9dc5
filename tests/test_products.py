"""The quick part of a product uses every choice, beside different ones."""

import pytest

from tests.products import sampled

CHOICES = (range(5), range(6), range(3))


@pytest.mark.parametrize("times", [1, 2, 3])
def test_each_choice_is_in_the_quick_part(times):
    cases = sampled(*CHOICES, times=times)
    assert len({case.values for case in cases}) == len(cases) == 5 * 6 * 3
    quick = [case.values for case in cases if not case.marks]
    assert len(quick) == 6 * times
    for place, choices in enumerate(CHOICES):
        for choice in choices:
            assert len([case for case in quick if case[place] == choice]) >= times
