"""The base of every group of the chart's values; it knows no value by name."""

from pydantic import ConfigDict
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
