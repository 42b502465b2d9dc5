"""Strategies for hostile input: whole files by mutation of good ones, and trees of odd values."""

import json
from typing import Any

import yaml
from hypothesis import strategies as st

from trainer.config.keys import settings as all_settings

KEYS = sorted({setting.key for setting in all_settings()} | {"extends", "name", "phases.0.steps"})
SECTIONS = sorted({key.split(".")[0] for key in KEYS})
WORDS = ["gwpf", "fedavg", "digits", "npz", "true", "~", "1e400", "-0", "0x10", "1_000", "2020-1-1"]
WORDS += [".inf", ".nan", "&a [*a]", "!!python/object:os.system x", "? {a: b}", "<<", "\x1b[31m"]
WORDS += ["\u202e", "\ud7ff", "9" * 5000, "[" * 2000, "{a: " * 500, "'", '"', "#", "|", "\t", "\0"]

numbers = st.one_of(
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400, -(10**400)]),
    st.floats(),
    st.booleans(),
)
texts = st.one_of(st.sampled_from(WORDS), st.text(max_size=12))
leaves = st.one_of(st.none(), numbers, texts, st.dates(), st.binary(max_size=4))
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(texts, numbers), inner, max_size=3)
    ),
    max_leaves=8,
)
json_values = st.recursive(
    st.one_of(st.none(), numbers, st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@st.composite
def trees(draw: Any, keys: Any, value: Any = values) -> dict[Any, Any]:
    """A mapping with known keys at their places, and odd values there."""
    tree: dict[Any, Any] = {}
    for key in draw(st.lists(st.one_of(keys, texts), max_size=5)):
        here, parts = tree, str(key).split(".")
        for part in parts[:-1]:
            here = here.setdefault(part, {}) if isinstance(here.get(part, {}), dict) else {}
        here[parts[-1]] = draw(value)
    return tree


@st.composite
def mutated(draw: Any, good: Any, tokens: Any = None) -> bytes:
    """A good file after some edits: bytes flipped, cut, doubled, replaced by tokens."""
    content = bytearray(draw(good))
    tokens = tokens or st.binary(max_size=4)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        until = draw(st.integers(at, min(len(content), at + draw(st.sampled_from([0, 1, 8, 400])))))
        match draw(st.sampled_from(["flip", "cut", "put", "double", "end"])):
            case "flip" if at < len(content):
                content[at] ^= 1 << draw(st.integers(0, 7))
            case "put":
                content[at:until] = draw(tokens)
            case "double":
                content[at:at] = content[at:until]
            case "end":
                del content[at:]
            case _:
                del content[at:until]
    return bytes(content)


word_tokens = texts.map(lambda text: text.encode("utf-8", "replace"))


def as_yaml(tree: Any) -> bytes:
    return yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "replace")


def as_json(tree: Any) -> bytes:
    return json.dumps(tree, default=str, skipkeys=True).encode()


def documents(good: list[bytes], keys: Any) -> Any:
    """Files of text: good ones mutated, odd trees as YAML and JSON, and any bytes at all."""
    tree = trees(keys)
    return st.one_of(
        mutated(st.sampled_from(good), word_tokens),
        tree.map(as_yaml),
        tree.map(as_json),
        values.map(as_yaml),
        st.binary(max_size=60),
    )
