"""A rank's /metrics as rows under the catalogue's names, and their sum over ranks.

Prometheus' own parser reads the text; the names are those of trainer/metrics/catalog.py only.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from trainer.metrics.catalog import CATALOG, PREFIX

Row = dict[str, Any]  # name -> number, or {label: number}; without what was not measured
Labels = dict[str, str]  # of fedctl_info: run, digest, rank, ranks, stage

KINDS = {metric.name: metric for metric in CATALOG}


def read(text: str) -> tuple[Row, Labels]:
    """Return the row of a rank and its labels; raise ValueError if the text is not metrics."""
    from prometheus_client.parser import text_string_to_metric_families

    row: Row = {}
    info: Labels = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            metric = KINDS.get(sample.name.removeprefix(PREFIX))
            if metric is None or not sample.name.startswith(PREFIX):
                continue
            if metric.name == "info":
                info = dict(sample.labels)
            elif metric.labels:
                label = sample.labels.get(metric.labels[0], "")
                row.setdefault(metric.name, {})[label] = sample.value
            else:
                row[metric.name] = sample.value
    return row, info


def whole(rows: Iterable[Mapping[str, Any]]) -> Row:
    """Combine the ranks' rows: counters are a rank's share, gauges are the whole run's."""
    result: Row = {}
    for row in rows:
        for name, value in row.items():
            combine = sum if KINDS[name].kind == "counter" else max
            if isinstance(value, Mapping):
                labels = result.setdefault(name, {})
                for label, number in value.items():
                    known = labels.get(label)
                    labels[label] = number if known is None else combine((known, number))
            else:
                known = result.get(name)
                result[name] = value if known is None else combine((known, value))
    return result
