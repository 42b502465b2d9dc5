"""Metrics of runs in progress: each rank's /metrics, fetched through the API server.

No port is forwarded. If metrics cannot be read, the view has the reason.
"""

from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fedctl.cluster.api import errors
from fedctl.cluster.status import job, ranks, state
from fedctl.cluster.status.ranks import CHART, NAME, RUN, Rank
from fedctl.cluster.status.snapshot import Snapshot
from fedctl.cluster.watch import metrics
from fedctl.errors import FedctlError
from fedctl.report import summary
from fedctl.report.rows import perplexity, saved, uploaded, wire

if TYPE_CHECKING:
    from fedctl.cluster.api.client import Cluster

AT_ONCE = 16  # requests
SECONDS = 6  # for one rank's answer: with a longer wait the table would not be live
NOTHING = "–"


@dataclass(frozen=True)
class RankView:
    """A rank at one moment; `problem`: why it has no row."""

    rank: int
    pod: str
    node: str
    state: str
    restarts: int
    row: metrics.Row = field(default_factory=dict)
    problem: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the rank as JSON output."""
        fields = {key: value for key, value in vars(self).items() if key != "row"}
        return fields | {"metrics": self.row}


@dataclass(frozen=True)
class RunView:
    """A run at one moment; `pace`: seconds per round lately."""

    run: str
    state: str
    size: int
    ranks: Sequence[RankView]
    row: metrics.Row
    pace: float | None

    @property
    def restarts(self) -> int:
        """Restarts of all ranks together."""
        return sum(rank.restarts for rank in self.ranks)

    @property
    def running(self) -> int:
        """Number of ranks that run."""
        return sum(rank.state == state.RUNNING for rank in self.ranks)

    @property
    def problems(self) -> list[str]:
        """Why there are no numbers: each reason once, with the first rank that has it."""
        reasons: dict[str, int] = {}
        for rank in self.ranks:
            if rank.problem:
                reasons.setdefault(rank.problem, rank.rank)
        return [f"{self.run}, rank {rank}: {problem}" for problem, rank in reasons.items()]

    def as_dict(self) -> dict[str, Any]:
        """Return the run as JSON output, with numbers under the catalogue's names."""
        return {
            "name": self.run,
            "state": self.state,
            "ranks_ready": self.running,
            "ranks_total": self.size,
            "restarts": self.restarts,
            "round_seconds": self.pace,
            "saved_ratio": saved(self.row) if _counted(self.row) else None,
            "uploaded_bytes": uploaded(self.row) if _counted(self.row) else None,
            "metrics": self.row,
            "ranks": [rank.as_dict() for rank in self.ranks],
        }


class Top:
    """Repeated polls of runs; remembers their rounds to compute their pace."""

    def __init__(self, cluster: "Cluster", names: Sequence[str] = ()) -> None:
        self._cluster, self._names = cluster, names
        self._before: dict[str, tuple[float, float, float | None]] = {}  # round, seconds, pace

    def poll(self) -> list[RunView]:
        """Read the runs that were named, or all that have not ended."""
        if self._names:
            found = [job.required(self._cluster, name) for name in self._names]
        else:
            found = [mine for mine in job.of_namespace(self._cluster) if not job.ended(mine)]
        pods = self._cluster.list("Pod", labels={NAME: CHART}) if found else []
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return [self._view(pool, mine, pods) for mine in sorted(found, key=_name)]

    def _view(self, pool: Executor, mine: job.Object, pods: Sequence[job.Object]) -> RunView:
        name = _name(mine)
        own = [pod for pod in pods if pod["metadata"]["labels"].get(RUN) == name]
        now = state.of(Snapshot(name, self._cluster.namespace, mine, own))
        newest = ranks.newest(ranks.of_pods(own))
        views = list(pool.map(lambda line: self._ask(line, newest.get(line.rank)), now.ranks))
        row = metrics.whole(view.row for view in views)
        return RunView(name, now.state, now.size, views, row, self._pace(name, row))

    def _ask(self, line: state.RankRow, rank: Rank | None) -> RankView:
        row: metrics.Row = {}
        problem = ""
        if rank and rank.running:
            row, problem = self._read(rank)
        elif line.state not in state.ENDED:
            problem = rank.why_waiting() if rank else "it has no pod"
        return RankView(line.rank, line.pod, line.node, line.state, line.restarts, row, problem)

    def _read(self, rank: Rank) -> tuple[metrics.Row, str]:
        """Return a rank's row, and why there is none."""
        if rank.metrics_port is None:
            return {}, "its pod has no port named metrics"
        try:
            text = self._cluster.proxy(rank.name, rank.metrics_port, "metrics", seconds=SECONDS)
            row, _info = metrics.read(text)
        except ValueError:
            return {}, f"its port {rank.metrics_port} does not serve metrics"
        except FedctlError as error:
            return {}, _why(error)
        return row, "" if "round" in row else "it has not finished a round yet"

    def _pace(self, name: str, row: metrics.Row) -> float | None:
        """Return the seconds per round since the last poll with a new round, or since the start."""
        if not row.get("round"):
            return None
        now, time = row["round"], row["time_seconds"]
        before, since, pace = self._before.get(name, (0.0, 0.0, None))
        if now < before:  # the run has resumed from a checkpoint
            before, since = 0.0, 0.0
        if now > before:
            pace = (time - since) / (now - before)
            self._before[name] = (now, time, pace)
        return pace


def _name(mine: job.Object) -> str:
    return str(mine["metadata"]["name"])


def _why(error: FedctlError) -> str:
    """Return why a rank's port cannot be read."""
    message = getattr(error, "message", "") or str(error)
    if isinstance(error, errors.Forbidden):
        return str(error)
    if "refused" in message:
        return "it does not serve metrics yet: it is still starting or preparing data"
    if isinstance(error, errors.Unreachable) or "timeout" in message or "deadline" in message:
        return (
            "the API server cannot reach its port; check whether a NetworkPolicy forbids it "
            "(networkPolicy.metricsFrom)"
        )
    if isinstance(error, errors.NotFound | errors.KindMissing):
        return "its pod was just deleted"
    return str(error)


def _counted(row: metrics.Row) -> bool:
    return "payload_bytes_total" in row and "dense_equivalent_bytes_total" in row


def cells(view: RunView, each: bool = False) -> list[dict[str, str]]:
    """Return the run's line for people, and with `each` one for each rank under it."""
    pace = NOTHING if view.pace is None else f"{view.pace:.2f}"
    tail = {"s/round": pace, "ranks": f"{view.running}/{view.size}", "restarts": view.restarts}
    rows = [{"run": view.run, "state": view.state} | _numbers(view.row) | tail]
    for rank in view.ranks if each else ():
        tail = {"s/round": "", "ranks": rank.node or NOTHING, "restarts": rank.restarts}
        rows.append({"run": f"  rank {rank.rank}", "state": rank.state} | _numbers(rank.row) | tail)
    return [{heading: str(cell) for heading, cell in row.items()} for row in rows]


def _numbers(row: metrics.Row) -> dict[str, str]:
    """Format the numbers of a row, with a dash for each that is missing."""
    planned = f"/{row['rounds_planned']:.0f}" if "rounds_planned" in row else ""
    return {
        "round": f"{row['round']:.0f}{planned}" if "round" in row else NOTHING,
        "accuracy": _text(row, "test_accuracy_ratio", summary.percent),
        "loss": _text(row, "test_loss", summary.loss) + _perplexity(row),
        "sent MB": summary.megabytes(uploaded(row)) if _counted(row) else NOTHING,
        "wire MB": summary.megabytes(wire(row)) if "wire_bytes_total" in row else NOTHING,
        "saved": summary.percent(saved(row)) if _counted(row) else NOTHING,
        "frozen": _text(row, "frozen_parameters_ratio", summary.percent),
        "memory MB": _text(row, "device_memory_bytes", summary.megabytes),
    }


def _perplexity(row: metrics.Row) -> str:
    found = perplexity(row)
    return "" if found is None else f" (perplexity {summary.unsure(found)})"


def _text(row: metrics.Row, name: str, write: Any) -> str:
    return str(write(row[name])) if name in row else NOTHING
