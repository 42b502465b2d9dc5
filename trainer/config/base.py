"""Base of every section of an experiment: frozen, without unknown keys, with documented fields.

It knows no section and no setting by name.
"""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from trainer.config import secrets

NOT = "not learned"  # in a field's JSON schema


class Section(BaseModel):
    """A part of an experiment. Each field is documented in `help`, its unit in `unit`.

    A section that is one of several choices (it has a `name`) also declares the class that
    implements it, what that class needs, and what an experiment lacks with it.
    trainer/config/fit.py rejects combinations from these declarations.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )

    implementation: ClassVar[str] = ""  # `package.module:class`, imported when a run is built
    needs: ClassVar[dict[str, str]] = {}  # capability -> what the class does that needs it
    lacks: ClassVar[frozenset[str]] = (
        frozenset()
    )  # capabilities that an experiment does not have with this choice

    @field_validator("*")
    @classmethod
    def _has_no_secret(cls, value: Any) -> Any:
        if isinstance(value, str) and secrets.in_url(value):
            raise ValueError(
                "has a password, token or signature in a URL, which run folders, ConfigMaps and "
                "trackers would show; remove it, and pass it in an environment variable"
            )
        return value


def setting(
    default: Any = ..., *, help: str, unit: str = "", learned: bool = True, **limits: Any
) -> Any:
    """Declare a documented field; `unit` is what its value is counted in.

    learned: whether it has a part in what is learned, so that with another value it is another
    experiment; False: it is about where and how long the same experiment runs.
    """
    extra: dict[str, Any] = ({"unit": unit} if unit else {}) | ({} if learned else {NOT: True})
    return Field(default, description=help, json_schema_extra=extra or None, **limits)


def identity(section: Section, prefix: str = "") -> dict[str, Any]:
    """Return the settings of a section that have a part in what is learned, by dotted key."""
    found: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        extra = field.json_schema_extra
        if not (isinstance(extra, dict) and extra.get(NOT)):
            found |= _values(getattr(section, name), prefix + name)
    return found


def _values(value: Any, key: str) -> dict[str, Any]:
    if isinstance(value, Section):
        return identity(value, f"{key}.")
    if isinstance(value, tuple) and any(isinstance(item, Section) for item in value):
        return {
            k: v for at, item in enumerate(value) for k, v in _values(item, f"{key}.{at}").items()
        }
    return {key: value}
