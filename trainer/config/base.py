"""Owns the base of every section: frozen, no unknown keys, documented fields."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A part of an experiment. Field docs live in `help`, units in `unit`."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )


def setting(default: Any = ..., *, help: str, unit: str = "", **limits: Any) -> Any:
    """A documented field: `help` says what it does, `unit` what it is counted in."""
    extra: dict[str, Any] | None = {"unit": unit} if unit else None
    return Field(default, description=help, json_schema_extra=extra, **limits)
