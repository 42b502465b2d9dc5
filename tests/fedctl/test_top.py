"""How runs are doing, as each rank says it on /metrics; what cannot be read is said in words."""

import json
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from fedctl.cluster.watch import metrics
from fedctl.cluster.watch.top import Top
from tests.fedctl.apiserver import Refusal
from tests.fedctl.conftest import row
from tests.fedctl.objects import job, pod
from tests.fedctl.podserver import PodServer
from trainer.metrics.catalog import CATALOG, PREFIX, Row
from trainer.metrics.recorder import Exposed

LABELS = {"run": "digits", "digest": "80e9865219ff", "rank": "0", "ranks": "2", "stage": "0"}


def page(number: int, share: float = 1.0, frozen: float = 0.5, **more: Any) -> str:
    """What the trainer's own recorder serves after a round: of counters a rank's share."""
    full = row(number, frozen)
    counted = {metric.name for metric in CATALOG if metric.kind == "counter"}

    def part(name: str, value: Any) -> Any:
        if name not in counted:
            return value
        return (
            {k: v * share for k, v in value.items()} if isinstance(value, dict) else value * share
        )

    exposed = Exposed(LABELS)
    exposed.update(Row(**{name: part(name, value) for name, value in (full | more).items()}))
    registry = CollectorRegistry()
    registry.register(exposed)
    return generate_latest(registry).decode()


def test_every_metric_of_the_catalogue_is_read_back() -> None:
    given = row(4, 0.25) | {"rounds_planned": 10, "gradient_variance": 1e-12, "train_loss": 2.5}
    text = page(4, frozen=0.25, **{k: given[k] for k in ("rounds_planned", "gradient_variance")})
    found, info = metrics.read(text)
    assert info == LABELS
    for name, value in given.items():
        if name in metrics.KINDS and name != "train_loss":
            assert found[name] == pytest.approx(value), name
    assert f"{PREFIX}round" in text  # so it is no empty page that was compared


def test_what_is_no_exposition_is_refused() -> None:
    with pytest.raises(ValueError):
        metrics.read("<html>not { found</html>")
    assert metrics.read("") == ({}, {})
    assert metrics.read("python_gc_objects_total 3\nother_round 7\n") == ({}, {})


def test_a_run_is_the_sum_of_its_ranks_shares_and_the_most_of_its_gauges() -> None:
    ranks = [metrics.read(page(6, 0.25))[0], metrics.read(page(6, 0.75))[0]]
    whole, expected = metrics.whole(ranks), metrics.read(page(6))[0]
    assert whole.keys() == expected.keys()
    for name, value in expected.items():
        assert whole[name] == pytest.approx(value), name


@pytest.fixture
def digits(api: PodServer) -> PodServer:
    api.add(job(), pod(rank=0), pod(rank=1, restarts=2))
    for rank, share, memory in ((0, 0.25, 3e8), (1, 0.75, 4.5e8)):
        text = page(6, share, rounds_planned=10, device_memory_bytes=memory)
        api.pages[f"digits-worker-{rank}"] = text
    return api


def test_a_run_has_one_line_of_numbers(digits: PodServer, fedctl) -> None:
    shown = fedctl("top")
    assert shown.exit_code == 0, shown.output
    heading, _rule, line = (text.split() for text in shown.stdout.strip().splitlines())
    # 6 rounds of 1,000 parameters and ten clients, half frozen: see conftest.row.
    assert line == [
        "digits", "Running", "6/10", "81.7", "%", "0.167", "0.12", "0.10", "48.4", "%", "50.0", "%",
        "450", "0.50", "2/2", "2",
    ]  # fmt: skip
    assert heading[:5] == ["run", "state", "round", "accuracy", "loss"]
    assert shown.stderr == ""


def test_ranks_have_lines_too_where_they_are_asked_for(digits: PodServer, fedctl) -> None:
    lines = fedctl("top", "digits", "--ranks").stdout.splitlines()
    ranks = [line.split() for line in lines if line.lstrip().startswith("rank ")]
    assert [line[:3] for line in ranks] == [["rank", "0", "Running"], ["rank", "1", "Running"]]
    assert [line[-3:] for line in ranks] == [["300", "node-0", "0"], ["450", "node-1", "2"]]


def test_top_as_json_has_the_catalogues_names(digits: PodServer, fedctl) -> None:
    (run,) = json.loads(fedctl("top", "-o", "json").stdout)
    assert (run["name"], run["state"], run["ranks_ready"], run["restarts"]) == (
        "digits", "Running", 2, 2,
    )  # fmt: skip
    assert run["metrics"]["round"] == 6 and run["saved_ratio"] == pytest.approx(0.484375)
    assert set(run["metrics"]) <= {metric.name for metric in CATALOG}
    assert [rank["rank"] for rank in run["ranks"]] == [0, 1]
    assert [rank["metrics"]["round"] for rank in run["ranks"]] == [6, 6]


def test_a_loss_that_is_no_number_is_null_in_json(api: PodServer, fedctl) -> None:
    api.add(job(ranks=1), pod())
    api.pages["digits-worker-0"] = page(6, test_loss=float("nan"))
    (run,) = json.loads(
        fedctl("top", "-o", "json").stdout, parse_constant=lambda name: pytest.fail(name)
    )
    assert run["metrics"]["test_loss"] is None
    assert "not finite" in fedctl("top").stdout


def test_the_pace_is_that_of_the_last_rounds(api: PodServer, cluster) -> None:
    api.add(job(ranks=1), pod())
    top = Top(cluster)
    paces = []
    for number, seconds in ((0, 0.0), (4, 20.0), (4, 20.0), (6, 22.0), (5, 21.0)):
        api.pages["digits-worker-0"] = page(max(number, 1), round=number, time_seconds=seconds)
        paces.append(top.poll()[0].pace)
    # Nothing yet; since the start; no new round; the last two; back at a checkpoint.
    assert paces == [None, 5.0, 5.0, 1.0, pytest.approx(4.2)]


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (
            Refusal(503, "ServiceUnavailable",
                    "error trying to reach service: dial tcp 10.0.0.7:9401: connect: connection "
                    "refused"),
            "it does not serve metrics yet",
        ),
        (
            Refusal(503, "ServiceUnavailable",
                    "error trying to reach service: dial tcp 10.0.0.7:9401: i/o timeout"),
            "check whether a NetworkPolicy forbids it (networkPolicy.metricsFrom)",
        ),
        ("{", "its port 9401 does not serve metrics"),
        ("# nothing yet\n", "it has not finished a round yet"),
    ],
)  # fmt: skip
def test_why_a_rank_has_no_numbers_is_said(digits: PodServer, fedctl, answer, line) -> None:
    digits.pages["digits-worker-1"] = answer
    shown = fedctl("top")
    assert shown.exit_code == 0 and "6/10" in shown.stdout
    (said,) = shown.stderr.splitlines()
    assert said.startswith("digits, rank 1: ") and line in said


def test_who_may_not_use_the_proxy_is_told_so_once(digits: PodServer, fedctl) -> None:
    digits.denied.add(("get", "pods/proxy"))
    shown = fedctl("top")
    assert shown.exit_code == 0 and "Running" in shown.stdout
    (said,) = shown.stderr.splitlines()
    assert "ada has no permission to get pods/proxy in namespace lab" in said
    assert "charts/fedtrain-platform" in said


def test_a_right_to_a_kind_that_is_not_there_is_not_asked_for(digits: PodServer, fedctl) -> None:
    digits.denied.add(("list", "trainjobs"))
    refused = fedctl("top")
    assert refused.exit_code == 1 and "ada has no permission to list trainjobs" in refused.stderr
    digits.missing.add("trainer.kubeflow.org")
    assert fedctl("top").exit_code == 0


def test_runs_that_have_ended_are_shown_only_by_name(api: PodServer, fedctl) -> None:
    api.add(job("old", end="Succeeded"), pod("old", state="done"), pod("old", 1, state="done"))
    assert fedctl("top").stdout == "no run is active; `fedctl list` shows those that have ended\n"
    assert "Succeeded" in fedctl("top", "old").stdout
    missing = fedctl("top", "older")
    assert missing.exit_code == 1 and "older: no such run in namespace lab" in missing.stderr


def test_a_run_that_waits_says_for_what(api: PodServer, fedctl) -> None:
    api.add(job(ranks=1), pod(state="unschedulable"))
    assert "no node fits: 0/3 nodes are available" in fedctl("top").stderr
