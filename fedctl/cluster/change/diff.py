"""The difference between a run as rendered and as it is on the cluster. Changes nothing."""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from fedctl.cluster.change.submit import BOOKKEEPING, Document, name_of

if TYPE_CHECKING:
    from fedctl.cluster.api.client import Cluster


def differences(cluster: "Cluster", found: Sequence[Document]) -> Iterator[tuple[str, str]]:
    """Yield each object that an apply would change, with a unified diff as the server has it."""
    for document in found:
        live = cluster.live(document.obj)
        if live is None:  # without the server's defaults, since there is nothing to compare with
            after: Mapping[str, Any] = document.obj
        else:
            # Changes by others are what the diff is for, so conflicts are forced.
            after, _ = cluster.apply(document.obj, dry_run=True, force=True, text=document.text)
        name = name_of(document.obj)
        text = "".join(
            difflib.unified_diff(
                _lines(live), _lines(after), f"{name} on the cluster", f"{name} as rendered"
            )
        )
        if text:
            yield name, text


def _lines(obj: Mapping[str, Any] | None) -> list[str]:
    if obj is None:
        return []
    meta = {key: value for key, value in obj["metadata"].items() if key not in BOOKKEEPING}
    kept = {key: value for key, value in obj.items() if key != "status"} | {"metadata": meta}
    if "data" in kept:
        kept["data"] = {key: _opened(text) for key, text in kept["data"].items()}
    return yaml.safe_dump(kept, width=10**9, allow_unicode=True).splitlines(keepends=True)


def _opened(text: str) -> Any:
    """Parse JSON, so that the diff of an experiment is not one long line."""
    try:
        return json.loads(text)
    except ValueError:
        return text
