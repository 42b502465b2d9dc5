"""A real Prometheus scrapes a real run of two ranks: every rule and panel has something to say.

The ranks are scraped three times over, under the labels that a target has without a cluster, as a
pod of a PyTorchJob and as a pod of a TrainJob; the latter two go through the relabelling of the
PodMonitor that the platform chart makes.
"""

import contextlib
import json
import os
import re
import signal
import time

import pytest

from tests.charts.platform import PROMETHEUS_OPERATOR, render
from tests.dashboards.monitoring import RULES, alerts, panels, recorded
from tests.dashboards.prometheus import running, wait_until
from tests.fedctl.processes import starting_in, wait_for_round

RANKS = 2
JOBS = {
    "": "",
    "pytorchjob": "training_kubeflow_org_job_name",
    "trainjob": "jobset_sigs_k8s_io_jobset_name",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run that goes on until the tests are through with it."""
    folder = tmp_path_factory.mktemp("watched")
    with starting_in(folder) as fedctl:
        fedctl(
            # a language model as a pipeline, which freezes: every series has something to say
            "run", "gwpf-text", "--ranks", RANKS, "--out", folder / "run",
            "--set", "rounds=1000000", "--set", "evaluation.alignment=true",
            "--set", "evaluation.every=1", "--set", "parallel.pipeline=2",
            "--set", "schedule.phases.0.steps=2", "--set", "schedule.batch_size=4",
            "--set", "model.name=llama-tiny", "--set", "data.tokenizer.size=400",
        )  # fmt: skip
        wait_for_round(folder / "run", 1)
        yield folder / "run"
        for rank in range(RANKS):  # or the end waits for them to notice that they are alone
            with contextlib.suppress(ProcessLookupError):
                os.kill(status_of(folder / "run", rank)["pid"], signal.SIGKILL)


@pytest.fixture(scope="module")
def prometheus(run, tmp_path_factory):
    ports = [rank["metrics_port"] for rank in map(status_of, [run] * RANKS, range(RANKS))]
    relabelling = [
        {"source_labels": r["sourceLabels"], "regex": r["regex"], "target_label": r["targetLabel"]}
        for r in render(apis=PROMETHEUS_OPERATOR)["PodMonitor/platform"]["spec"][
            "podMetricsEndpoints"
        ][0]["relabelings"]
    ]
    config = {
        "global": {
            "scrape_interval": "1s",
            "scrape_timeout": "1s",
            "evaluation_interval": "1s",
        },
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {
                "job_name": job or "local",
                "relabel_configs": relabelling,
                "static_configs": [
                    {
                        "targets": [f"127.0.0.1:{port}" for port in ports],
                        "labels": {
                            "namespace": "team-a",
                            f"__meta_kubernetes_pod_label_{label}": job,
                        }
                        if job
                        else {},
                    }
                ],
            }
            for job, label in JOBS.items()
        ],
    }
    with running(tmp_path_factory.mktemp("prometheus"), config) as server:
        yield server


def status_of(run, rank):
    return json.loads((run / "logs" / f"rank-{rank}.json").read_text())


def answered(prometheus, query):
    """The jobs for which a query has an answer, once it has one for all of them."""
    query = query.replace("$namespace", ".*").replace("$run", "gwpf-.*")

    def jobs():
        return {series["metric"].get("job_name", "") for series in prometheus.query(query)}

    return wait_until(lambda: (found := jobs()) == set(JOBS) and found, f"an answer to {query}")


def test_every_recorded_series_has_data_for_every_run(prometheus):
    for name in recorded():
        assert answered(prometheus, name) == set(JOBS), name


@pytest.mark.slow
def test_every_panel_has_data_for_every_run(prometheus):
    for panel in panels():
        for query in panel.queries:
            assert answered(prometheus, query) == set(JOBS), (panel.title, query)


@pytest.mark.slow
def test_prometheus_evaluates_all_rules_without_a_complaint(prometheus):
    loaded = wait_until(
        lambda: (found := prometheus.rules()) and all(r["health"] == "ok" for r in found) and found,
        "every rule evaluated",
    )
    assert [rule["lastError"] for rule in loaded if rule.get("lastError")] == []
    assert len(loaded) == len(recorded()) + len(alerts())


@pytest.mark.slow
def test_a_healthy_run_raises_no_alert(prometheus):
    """Waits, for on a busy machine a scrape may fail once."""
    wait_until(lambda: not any(map(prometheus.query, alerts().values())), "no alert's condition")


@pytest.mark.slow
def test_ranks_say_themselves_who_they_are(prometheus):
    found = prometheus.query("rank:fedctl_local_seconds:relative5m")
    assert {s["metric"]["rank"] for s in found} == {str(rank) for rank in range(RANKS)}
    assert not [
        label
        for s in prometheus.query("fedctl_info")
        for label in s["metric"]
        if "exported" in label
    ]


@pytest.mark.slow
def test_a_run_sent_what_its_ranks_sent_together(prometheus, run):
    """Ranks are scraped moments apart, so the sum is between two rounds of the run's own count."""

    def scraped():
        at = str(time.time() - 3)  # when each scrape of before has arrived
        rounds = prometheus.query('fedctl_round{job="local"}', time=at)
        return len(rounds) == RANKS and (at, [int(s["value"][1]) for s in rounds])

    at, rounds = wait_until(scraped, "both ranks' rounds")
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    rows = {
        row["round"]: row for row in map(json.loads, lines[:-1])
    }  # the last may be half written
    for name in ("payload_bytes_total", "wire_bytes_total"):
        [series] = prometheus.query(f'sum(fedctl_{name}{{job="local"}})', time=at)
        least, most = (sum(rows[played][name].values()) for played in (min(rounds), max(rounds)))
        assert 0 < least <= float(series["value"][1]) <= most


@pytest.mark.slow
def test_a_rank_that_stops_answering_is_missed(prometheus, run):
    pid = status_of(run, 1)["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        missing = wait_until(
            lambda: len(found := prometheus.query(alerts()["FedctlRankMissing"])) == 3 and found,
            "a missing rank, as each of the three jobs",
        )
    finally:
        os.kill(pid, signal.SIGCONT)
    assert {series["value"][1] for series in missing} == {"1"}
    assert {re.sub("-.*", "", series["metric"]["run"]) for series in missing} == {"gwpf"}
