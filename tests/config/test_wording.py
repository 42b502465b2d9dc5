"""What mistakes are called: no word of Python reaches who writes YAML."""

import re
import typing

import pytest
from pydantic import BaseModel

from fedctl import explain
from fedctl.chart import values
from fedctl.chart.schema import Values
from trainer.config.errors import ConfigError
from trainer.config.keys import settings
from trainer.config.load import get, load, put

OF_PYTHON = re.compile(
    r"valid (dictionary|tuple|list|string|boolean)|instance of|match pattern|FieldInfo|typing\.|"
    r"Annotated|Union|Optional|\bTrue\b|\bFalse\b|\bNone\b|\bmodel_|field required"
)
WRONG = ["x", "", 3, -1e40, 2.5, True, None, [], ["x"], [{"a": 1}], {}, {"a": 1}]


def keys_of(sections: typing.Iterable[str]) -> list[str]:
    """Every key, and that of each section above it."""
    keys = [key.split(".") for key in sections]
    return sorted({".".join(key[:length]) for key in keys for length in range(1, len(key) + 1)})


def values_of(part: type[BaseModel], prefix: str = "") -> typing.Iterator[str]:
    for field in part.model_fields.values():
        yield f"{prefix}{field.alias}"
        if isinstance(field.default, BaseModel):
            yield from values_of(type(field.default), f"{prefix}{field.alias}.")


@pytest.mark.parametrize("key", keys_of(s.key for s in settings() if ".0" not in s.key))
def test_a_setting_of_the_wrong_type_is_explained_without_python(key):
    variant = next((s.variant for s in settings() if s.key == key), "")
    for wrong in WRONG:
        tree: dict[str, typing.Any] = {}
        if variant:
            put(tree, *variant.split("="))
        put(tree, key, wrong)
        try:
            load(tree, ineffective_allowed=True)
        except ConfigError as error:
            of_it = str(error).startswith(key.partition(".")[0])
            assert of_it or key in str(error), str(error)  # a value that another does not fit
            assert not OF_PYTHON.search(str(error)), str(error)


@pytest.mark.parametrize("key", list(values_of(Values)))
def test_a_value_of_the_chart_of_the_wrong_type_is_explained_without_python(key):
    for wrong in WRONG:
        given: dict[str, typing.Any] = {}
        put(given, key, wrong)
        try:
            values._validate(given)
        except ConfigError as error:
            assert str(error).startswith(key) and get(given, key) == wrong
            assert not OF_PYTHON.search(str(error)), str(error)


def test_types_of_settings_are_in_words():
    types = {setting.key: setting.type for setting in settings()}
    assert [text for text in types.values() if OF_PYTHON.search(text) or ">" in text] == []
    assert types["data.mean"] == "list of numbers, -1e30 to 1e30, or empty"
    assert types["data.std"] == "list of numbers, above 0, at most 1e30, or empty"
    assert types["seed"] == "int, 0 to 9223372036854775807"
    assert types["evaluation.target"] == "number, at least 0, below 1, or empty"
    assert types["codec.block"] == "int, 8 to 65536, a multiple of 8"
    assert types["model.norm"] == "batch | group | none, or empty"
    assert types["schedule.phases"] == "list of sections"
    assert explain.as_text(explain.find("data.augment"), 100).startswith(
        "data.augment: true or false"
    )
