"""Owns the dashboard Savings: what runs send, would have sent, and pay for deciding what."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.panels import LEGEND, Panels, board, graph, listing, number, of

KIND = f"{LEGEND} {{{{kind}}}}"
SENT = f"sum without (kind) ({of('run:fedctl_payload_bytes:sum')})"
DENSE = of("run:fedctl_dense_equivalent_bytes:sum")
SAVED = of("run:fedctl_payload_saved:ratio")
DECIDING = of("run:fedctl_payload_votes:ratio")
MESSAGES = of("run:fedctl_messages:sum")
ACCURACY = of("run:fedctl_test_accuracy_ratio:max")
RATE = "run:fedctl_payload_bytes:rate5m"


def savings() -> Dashboard:
    """The dashboard."""
    return board(
        "fedctl-savings",
        "fedctl / Savings",
        "Bytes sent against FedAvg in fp32, by run",
        {
            "Overview": _overview(),
            "Against dense": _against_dense(),
            "Over time": _over_time(),
            "What it is made of": _by_kind(),
        },
    )


def _overview() -> Panels:
    return [
        number("Saved", "Of what FedAvg in fp32 would have uploaded", "percentunit", SAVED),
        number("Sent", "What the sampled clients had to upload", "decbytes", SENT),
        number("Dense", "What FedAvg in fp32 would have uploaded", "decbytes", DENSE),
        number(
            "Cost of deciding",
            "Votes, control and reconciliation, of what FedAvg in fp32 would have uploaded",
            "percentunit",
            DECIDING,
        ),
        number("Messages", "Between a server and the clients, up and down", "short", MESSAGES),
        number("Accuracy", "Of the mean model, on the whole test set", "percentunit", ACCURACY),
        listing(
            "Runs compared",
            "The latest of each run",
            {
                "Accuracy": (ACCURACY, "percentunit"),
                "Sent": (SENT, "decbytes"),
                "Dense": (DENSE, "decbytes"),
                "Saved": (SAVED, "percentunit"),
                "Messages": (MESSAGES, "short"),
            },
        ),
    ]


def _against_dense() -> Panels:
    return [
        graph("Sent and dense", "Bytes so far; the gap is what is saved", "decbytes",
              {f"{LEGEND} sent": SENT, f"{LEGEND} dense": DENSE}),
        graph("Saved share", "With what deciding costs; below 0: more is sent than FedAvg would",
              "percentunit", {LEGEND: SAVED}, most=1),
        graph("Cost of deciding", "Votes, control and reconciliation, of what FedAvg would upload",
              "percentunit", {LEGEND: DECIDING}),
    ]  # fmt: skip


def _over_time() -> Panels:
    return [
        graph("Bytes per second, uploads", "Payload of the sampled clients, mean of 5 minutes",
              "Bps", {LEGEND: f"sum without (kind) ({of(RATE)})"}),
        graph("Bytes per second, wire", "What the ranks' collectives send, mean of 5 minutes",
              "Bps", {KIND: of("run:fedctl_wire_bytes:rate5m")}, stacked=True),
        graph("Messages", "Between a server and the clients; formed: coded one by one",
              "short", {f"{LEGEND} all": MESSAGES,
                        f"{LEGEND} formed": of("run:fedctl_messages_formed:sum")}),
    ]  # fmt: skip


def _by_kind() -> Panels:
    return [
        graph("Uploads by kind", "Payload so far", "decbytes",
              {KIND: of("run:fedctl_payload_bytes:sum")}, stacked=True),
        graph("Uploads by kind, per second", "Payload, mean of 5 minutes", "Bps",
              {KIND: of(RATE)}, stacked=True),
        graph("Wire by kind", "What the ranks' collectives sent so far", "decbytes",
              {KIND: of("run:fedctl_wire_bytes:sum")}, stacked=True),
    ]  # fmt: skip
