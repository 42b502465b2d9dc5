"""Base of every section of an experiment: frozen, without unknown keys, with documented fields.

It knows no section and no setting by name.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, field_validator
from pydantic_core import CoreSchema

from trainer.config import secrets

NOT, FIXED = "not learned", "fixed"  # in a field's JSON schema
# Upper limits of settings that have no tighter one. Each number has a limit, so that a slip of the
# keyboard is an error in one line, and not a loop or an allocation without end.
MANY = 10**9  # rounds, steps, samples, seconds: whatever is only counted
LARGE = 1e30  # of a float: its products with others stay finite in single precision, mostly


def _make_strict(node: Any) -> None:
    if isinstance(node, dict):
        if node.get("type") in ("int", "float", "bool"):
            node["strict"] = True
        node = list(node.values())
    for item in node if isinstance(node, list) else ():
        _make_strict(item)


class Numbers(BaseModel):
    """Fields whose numbers are numbers: neither `true`, which is not 1, nor text such as '010'.

    So it is with switches: neither 1 nor 'yes' is `true`.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Make numbers and switches strict, and nothing else: a list still becomes a tuple."""
        schema = handler(source)
        _make_strict(schema)
        return schema


@dataclass(frozen=True)
class Only:
    """The values of another setting of the same section with which a setting has an effect."""

    key: str
    values: tuple[Any, ...] = ()  # any of these; if empty: anything but what follows
    but: tuple[Any, ...] = (None, False, 0)
    remedy: str = ""  # a value that gives the setting its effect, if `values` has none

    def holds(self, value: Any) -> bool:
        """Return whether the other setting has a value with which this one has an effect."""
        return value in self.values if self.values else value not in self.but


class Section(Numbers):
    """A part of an experiment. Each field is documented in `help`, its unit in `unit`.

    A section that is one of several choices (it has a `name`) also declares the class that
    implements it, what that class needs, and what an experiment lacks with it.
    trainer/config/fit.py rejects combinations from these declarations.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )

    implementation: ClassVar[str] = ""  # `package.module:class`, imported when a run is built
    once: ClassVar[str] = (
        ""  # likewise, of a codec: for vectors that are used one time; empty: the same
    )
    effects: ClassVar[dict[str, Only]] = {}  # of settings that others can make ineffective
    needs: ClassVar[dict[str, str]] = {}  # capability -> what the class does that needs it

    @property
    def required(self) -> dict[str, str]:
        """Return the needs as these settings have them, which are those of the class by default."""
        return self.needs

    lacks: ClassVar[frozenset[str]] = (
        frozenset()
    )  # capabilities that an experiment does not have with this choice
    instead: ClassVar[dict[str, tuple[str, str]]] = {}  # of those: the setting that gives one

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
    default: Any = ...,
    *,
    help: str,
    unit: str = "",
    learned: bool = True,
    fixed: bool = False,
    **limits: Any,
) -> Any:
    """Declare a documented field; `unit` is what its value is counted in.

    learned: whether it has a part in what is learned, so that with another value it is another
    experiment; False: it is about where and how long the same experiment runs. fixed: whether it
    decides what state a run has, so that none can resume with another value; of a section, its
    choice (its `name`) does.
    """
    extra: dict[str, Any] = {"unit": unit} if unit else {}
    extra |= {key: True for key, true in {NOT: not learned, FIXED: fixed}.items() if true}
    return Field(default, description=help, json_schema_extra=extra or None, **limits)


def identity(section: Section, prefix: str = "") -> dict[str, Any]:
    """Return the settings of a section that have a part in what is learned, by dotted key."""
    found: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        extra = field.json_schema_extra
        if not (isinstance(extra, dict) and extra.get(NOT)):
            found |= _values(getattr(section, name), prefix + name)
    return found


def fixed_keys(section: Section, prefix: str = "") -> set[str]:
    """Return the dotted keys of the settings that no run can resume with another value of."""
    found: set[str] = set()
    for name, field in type(section).model_fields.items():
        value, key, extra = getattr(section, name), prefix + name, field.json_schema_extra
        if isinstance(value, Section):
            found |= fixed_keys(value, f"{key}.")
        if isinstance(extra, dict) and extra.get(FIXED):
            found.add(f"{key}.name" if isinstance(value, Section) else key)
    return found


def _values(value: Any, key: str) -> dict[str, Any]:
    if isinstance(value, Section):
        return identity(value, f"{key}.")
    if isinstance(value, tuple) and any(isinstance(item, Section) for item in value):
        return {
            k: v for at, item in enumerate(value) for k, v in _values(item, f"{key}.{at}").items()
        }
    return {key: value}
