"""Parts that do not fit each other are refused, in a sentence made from what they declare."""

from dataclasses import replace

import pytest

from tests.jobs import experiment_run
from trainer.config.errors import ConfigError
from trainer.engine.parts import refuse
from trainer.exchange.reductions.reduction import Reduction
from trainer.exchange.transforms.error_feedback import ErrorFeedback

SCAFFOLD = {"algorithm": {"name": "scaffold"}}
APF = {"sync": {"name": "apf"}}


class Whole(Reduction):
    masks = False


class Median(Reduction):
    linear = False


def test_two_transforms_must_not_keep_the_same_residual():
    parts = replace(experiment_run({}).parts, chain=(ErrorFeedback(), ErrorFeedback()))
    with pytest.raises(ConfigError, match="ErrorFeedback and ErrorFeedback would both keep"):
        refuse(parts)


@pytest.mark.parametrize(
    "tree,reduction,message",
    [
        (APF, Whole(), "Whole exchanges whole rows, but APF excludes single values"),
        (SCAFFOLD, Median(), "Median is not a sum, so the state that KeptScaffold keeps"),
    ],
)
def test_a_reduction_must_take_what_it_is_given(tree, reduction, message):
    parts = replace(experiment_run(tree).parts, reduction=reduction)
    with pytest.raises(ConfigError, match=message):
        refuse(parts)
    refuse(replace(experiment_run({}).parts, reduction=reduction))  # it fits the others
