"""Owns the dashboard Run: how far runs are, how well they learn, where their time goes."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.panels import LEGEND, RUN_LABELS, Panels, board, graph, listing, number, of
from trainer.metrics.catalog import PREFIX

ROUND = of("run:fedctl_round:max")
PLANNED = of("run:fedctl_rounds_planned:max")
ACCURACY = of("run:fedctl_test_accuracy_ratio:max")
FROZEN = of("run:fedctl_frozen_parameters_ratio:max")
RELATIVE = of("rank:fedctl_local_seconds:relative5m")
RANK = "{{run}} rank {{rank}}"
NO_LANGUAGE = "no language model"
NOT_MEASURED = "not measured: set evaluation.alignment"
NO_OVERLAP = "every round waits for its exchange: set sync.overlap"
NO_PIPELINE = "no pipeline: set parallel.pipeline"


def run() -> Dashboard:
    """The dashboard."""
    return board(
        "fedctl-run",
        "fedctl / Run",
        "Progress, learning, freezing and time of runs, and of their ranks",
        {
            "Overview": _overview(),
            "Learning": _learning(),
            "Freezing": _freezing(),
            "Time": _time(),
            "Details": _details(),
        },
    )


def _overview() -> Panels:
    return [
        number("Round", "Last finished round", "short", ROUND),
        number("Progress", "Finished of planned rounds", "percentunit", f"{ROUND} / {PLANNED}"),
        number("Accuracy", "Of the mean model, on the whole test set", "percentunit", ACCURACY),
        number("Frozen", "Parameters not sent in the last round", "percentunit", FROZEN),
        number("Ranks", "That are scraped", "short", of("run:fedctl_ranks:count")),
        number("Clients", "That trained in the last round", "short",
               of("run:fedctl_clients_sampled:max")),
    ]  # fmt: skip


def _learning() -> Panels:
    return [
        graph("Accuracy", "Of the mean model, on the whole test set", "percentunit",
              {LEGEND: ACCURACY}, most=1),
        graph("Loss", "Test: of the mean model; train: mean since the last evaluation", "short",
              {f"{LEGEND} test": of("run:fedctl_test_loss:max"),
               f"{LEGEND} train": of("run:fedctl_train_loss:max")}),
        graph("Perplexity", "exp(test loss) of a language model", "short",
              {LEGEND: of("run:fedctl_test_perplexity:max")}).no_value(NO_LANGUAGE),
        graph("Round", "Finished, and planned", "short",
              {f"{LEGEND} finished": ROUND, f"{LEGEND} planned": PLANNED}),
    ]  # fmt: skip


def _freezing() -> Panels:
    deviation = of("run:fedctl_gradient_deviation_ratio:max")
    return [
        graph("Frozen", "Not sent in the last round; labelled: what the policy calls frozen",
              "percentunit",
              {f"{LEGEND} not sent": FROZEN,
               f"{LEGEND} labelled": of("run:fedctl_labelled_frozen_ratio:max")}, most=1),
        graph("Thawed", "Frozen parameters sent in the last round, and all parameters", "short",
              {f"{LEGEND} thawed": of("run:fedctl_thawed_parameters:max"),
               f"{LEGEND} parameters": of("run:fedctl_parameters:max")}),
        graph("Gradient deviation", "How far clients' gradients are from their mean, over its norm",
              "percentunit", {LEGEND: deviation}).no_value(NOT_MEASURED),
    ]  # fmt: skip


def _time() -> Panels:
    return [
        graph("Time by phase and rank", "Share of a rank's time, mean of 5 minutes", "percentunit",
              {f"{RANK} {{{{phase}}}}": of("rank:fedctl_phase_seconds:rate5m")}, stacked=True),
        graph("Slowest rank", "Its local work over the median rank's: others wait for it", "short",
              {RANK: f"topk by ({', '.join(RUN_LABELS)}) (1, {RELATIVE})"}),
        graph("Seconds per round", "Without evaluation, mean of 15 minutes", "s",
              {LEGEND: of("run:fedctl_round_seconds:mean15m")}),
        graph("Training time", "Without evaluation; side by side: if clients had not shared ranks",
              "s", {f"{LEGEND} as it is": of("run:fedctl_time_seconds:max"),
                    f"{LEGEND} side by side": of("run:fedctl_federated_time_seconds:max")}),
        graph("Samples per second", "Of all ranks, mean of 5 minutes", "short",
              {LEGEND: of("run:fedctl_samples:rate5m")}),
        graph("Local steps per second", "Of all ranks, mean of 5 minutes", "short",
              {LEGEND: of("run:fedctl_local_steps:rate5m")}),
    ]  # fmt: skip


def _details() -> Panels:
    return [
        listing("Ranks", "Where each rank is scraped", {"Up": (of(f"{PREFIX}info"), "short")},
                [*RUN_LABELS, "rank", "ranks", "stage", "pod", "instance"]),
        graph("Gradient variance", "Mean over clients of ||G_i - G||²", "short",
              {LEGEND: of("run:fedctl_gradient_variance:max")}).no_value(NOT_MEASURED),
        graph("Memory by rank", "On a GPU what PyTorch has reserved, on a CPU what is resident",
              "decbytes", {RANK: of("rank:fedctl_device_memory_bytes:max")}),
        graph("Samples by rank", "Share of all training samples so far", "percentunit",
              {RANK: of("rank:fedctl_rank_samples:share")}, most=1),
        graph("Idle by rank", "Waiting for the rank that trained longest in a round, so far", "s",
              {RANK: of("rank:fedctl_rank_idle_seconds:sum")}),
        graph("Hidden exchanges", "Share of a rank's time: it trained while one was under way",
              "percentunit", {RANK: of("rank:fedctl_hidden_exchange_seconds:rate5m")},
              most=1).no_value(NO_OVERLAP),
        graph("Idle in pipelines", "Share of a round's gradients in which a rank did not compute",
              "percentunit",
              {f"{RANK}, stage {{{{stage}}}}": of("rank:fedctl_pipeline_idle_ratio:max"),
               f"{LEGEND} if stages were even": of("run:fedctl_pipeline_ideal_idle_ratio:max")},
              most=1).no_value(NO_PIPELINE),
    ]  # fmt: skip
