"""Base of every section of an experiment: frozen, without unknown keys, with documented fields.

It knows no section and no setting by name.
"""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from trainer.config import secrets


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


def setting(default: Any = ..., *, help: str, unit: str = "", **limits: Any) -> Any:
    """Declare a documented field; `unit` is what its value is counted in."""
    extra: dict[str, Any] | None = {"unit": unit} if unit else None
    return Field(default, description=help, json_schema_extra=extra, **limits)
