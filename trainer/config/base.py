"""The base of every section: frozen, no unknown keys, documented fields."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A part of an experiment. Field docs live in `help`, units in `unit`.

    A section that is one of several choices (it has a `name`) also says what carries it out, and
    what that needs and gives: trainer/config/fit.py makes refusals from it.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )

    implementation: ClassVar[str] = ""  # `package.module:class`, imported when a run is built
    needs: ClassVar[dict[str, str]] = {}  # capability -> what it does that needs it
    lacks: ClassVar[frozenset[str]] = (
        frozenset()
    )  # capabilities that the experiment has not with it


def setting(default: Any = ..., *, help: str, unit: str = "", **limits: Any) -> Any:
    """A documented field: `help` says what it does, `unit` what it is counted in."""
    extra: dict[str, Any] | None = {"unit": unit} if unit else None
    return Field(default, description=help, json_schema_extra=extra, **limits)
