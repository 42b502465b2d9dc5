"""The base of every group of the chart's values; it knows no value by name."""

import re
from typing import Any

from pydantic import BeforeValidator, ConfigDict
from pydantic.alias_generators import to_camel

from trainer.config.base import Numbers


class Part(Numbers):
    """A group of values, written in camel case as usual in Helm."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_default=True,
        allow_inf_nan=False,
    )


def written(pattern: str, remedy: str) -> BeforeValidator:
    """Refuse text of another form with the remedy, since a pattern tells few people what to do.

    The field keeps the pattern too, for the chart's schema.
    """

    def check(value: Any) -> Any:
        if isinstance(value, str) and not re.search(pattern, value):
            raise ValueError(remedy)
        return value

    return BeforeValidator(check)
