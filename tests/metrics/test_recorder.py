"""Metrics: what a rank serves is what the catalogue lists, scraped over HTTP."""

import json
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from trainer.files import as_json
from trainer.metrics.catalog import CATALOG, PHASES, PREFIX, TRAFFIC, Row
from trainer.metrics.recorder import Recorder

LABELS = {"run": "r", "digest": "d", "rank": "0", "ranks": "1", "stage": "0"}


def full_row(number: int) -> Row:
    by_label = {"kind": TRAFFIC, "phase": PHASES, "trained_by": ("0", "1")}
    values: dict[str, object] = {}
    for metric in CATALOG:
        if metric.name != "info":
            labels = by_label[metric.labels[0]] if metric.labels else ()
            values[metric.name] = {label: number for label in labels} if labels else number
    return Row(**values)


@pytest.fixture
def recorder(tmp_path):
    recorder = Recorder(tmp_path, LABELS, 0)
    yield recorder
    recorder.close()


def scrape(port: int) -> dict[str, dict[tuple[str, ...], float]]:
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    return {
        sample.name: {tuple(s.labels.values()): s.value for s in family.samples}
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_scrape_shows_every_metric_of_the_catalogue_and_no_other(recorder):
    recorder.record(full_row(3), Row(round=3))
    series = scrape(recorder.serve("127.0.0.1", 0))
    assert set(series) == {PREFIX + metric.name for metric in CATALOG}
    assert series["fedctl_payload_bytes_total"][("votes",)] == 3


def test_what_was_not_measured_keeps_its_last_value_and_own_numbers_replace_the_runs(recorder):
    recorder.record(full_row(1), Row(round=1, samples_total=0.5))
    recorder.record(Row(round=2), Row(round=2))
    series = scrape(recorder.serve("127.0.0.1", 0))
    assert series["fedctl_round"][()] == 2
    assert series["fedctl_test_loss"][()] == 1
    assert series["fedctl_samples_total"][()] == 0.5


def test_a_resumed_run_forgets_the_rounds_that_it_will_play_again(tmp_path):
    recorder = Recorder(tmp_path, LABELS, 0)
    for number in (1, 2, 3):
        recorder.record(Row(round=number), Row(round=number))
    recorder.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"round": 4, "cut off')
    recorder = Recorder(tmp_path, LABELS, 2)
    again = Row(round=3, test_loss=0.5, final=True)
    recorder.record(again, Row(round=3))
    recorder.close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == [Row(round=1).values(), Row(round=2).values(), again.values()]
    assert (rows[2]["round"], rows[2]["test_loss"], rows[2]["final"]) == (3, 0.5, True)


def test_of_rows_that_may_have_changed_each_round_has_one_in_order(tmp_path):
    """What --allow-changed metrics accepts may be anything."""
    lines = [as_json(Row(round=number).values()) for number in (2, 3, 1, 2)]
    lines[-1] = as_json(Row(round=2, test_loss=0.5).values())
    odd = ['{"round": Infinity}', "[" * 200_000, '{"round": 1}', '{"round": "1"}', "null", ""]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, *odd]) + "\n")
    Recorder(tmp_path, LABELS, 2).close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["round"], row["test_loss"]) for row in rows] == [(1, None), (2, 0.5)]


def test_a_row_has_every_metric_but_a_ranks_own_and_what_was_not_measured():
    names = {metric.name: metric for metric in CATALOG if metric.name != "info"}
    assert set(full_row(1).values()) == {name for name in names if not names[name].own}
    plain = Row(round=1).values()
    assert set(full_row(1).values()) - set(plain) == {n for n in names if names[n].optional}
    assert {name for name, value in plain.items() if value is not None} == {"round"}


def test_a_row_that_is_not_finite_is_null_in_the_file_and_nan_for_prometheus(tmp_path):
    """An alert on NaN exists; JSON has no such value."""
    recorder = Recorder(tmp_path, LABELS, 0)
    row = Row(round=3, test_loss=float("nan"), train_loss=float("inf"), test_accuracy_ratio=0.1)
    recorder.record(row, Row(round=3))
    metrics = scrape(recorder.serve("127.0.0.1", 0))
    recorder.close()
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    found = json.loads(line, parse_constant=lambda name: pytest.fail(name))
    assert (found["test_loss"], found["train_loss"]) == (None, None)
    assert found["test_accuracy_ratio"] == 0.1
    assert str(metrics["fedctl_test_loss"][()]) == "nan"
    assert metrics["fedctl_train_loss"][()] == float("inf")


def test_names_follow_prometheus_conventions():
    for metric in CATALOG:
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.help and not metric.help.endswith(".")
