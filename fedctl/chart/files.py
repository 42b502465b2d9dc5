"""The generated files of charts/fedtrain: values.yaml and values.schema.json.

`python -m fedctl.chart.files values|schema` prints one of them; scripts/regenerate calls it.
"""

import json
import sys
import textwrap
from typing import Any

from pydantic import BaseModel

from fedctl.chart.schema import Values

WIDTH = 118
HEAD = """\
# One release is one run. fedctl computes these values from an experiment and its own options, and
# renders or sends the result; with Helm alone:
#
#     fedctl values gwpf-digits --image IMAGE > values.yaml
#     helm install gwpf-digits charts/fedtrain --namespace team-a --values values.yaml
#
# The experiment is one opaque string, since Helm would turn 1e-05 into text and large integers into
# floats. What a cluster needs, and what each choice means for a run: docs/kubernetes.md.
"""


def values_yaml() -> str:
    """Return every value with its default, and its comment above it."""
    return "\n".join([HEAD, *_section(Values, "", Values())]) + "\n"


def _section(part: type[BaseModel], indent: str, defaults: BaseModel) -> list[str]:
    """Return the lines of a section, whose defaults may differ from its class's."""
    lines: list[str] = []
    for name, field in part.model_fields.items():
        default = getattr(defaults, name)
        if isinstance(default, BaseModel):
            lines += [f"{indent}{field.alias}:  # {field.description}"]
            lines += _section(type(default), indent + "  ", default)
        else:
            lines += textwrap.wrap(
                f"-- {field.description}",
                WIDTH,
                initial_indent=f"{indent}# ",
                subsequent_indent=f"{indent}# ",
            )
            lines += [f"{indent}{field.alias}: {_leaf(default)}"]
        if not indent:
            lines += [""]
    return lines[:-1] if not indent else lines


def _leaf(value: Any) -> str:
    """Return the value as YAML that is also JSON; a whole number without its point."""
    whole = isinstance(value, float) and value.is_integer()
    return json.dumps(int(value) if whole else value)


def schema() -> str:
    """Return the JSON schema, in the draft that every Helm since 3.14 reads."""
    tree = Values.model_json_schema(by_alias=True)
    head = {"$schema": "http://json-schema.org/draft-07/schema#"}
    return json.dumps(head | _plain(tree), indent=2)


def _plain(node: Any) -> Any:
    """Drop what Helm does not use: titles, and defaults, which are in values.yaml."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {k: v for k, v in node.items() if not (k == "title" and isinstance(v, str))}
    return {k: _plain(v) for k, v in kept.items() if k != "default"}


if __name__ == "__main__":
    what = {"values": values_yaml, "schema": schema}
    print(what[sys.argv[1]](), end="" if sys.argv[1] == "values" else "\n")
