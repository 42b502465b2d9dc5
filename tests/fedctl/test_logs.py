"""What ranks say: one or all of them, through restarts, replaced pods and lost connections."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest

from fedctl.cluster.watch import logs
from fedctl.cluster.watch.logs import Line, Part, follow, read
from fedctl.errors import RunError, UserError
from tests import patience
from tests.fedctl.objects import job, pod
from tests.fedctl.podserver import Log, PodServer


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits in life waits for hundredths of seconds here."""
    monkeypatch.setattr(logs, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(logs, "PAUSE_SECONDS", 0.02)


def texts(lines: Iterator[Line]) -> list[str]:
    return [line.text for line in lines]


class Story:
    """What happens on the cluster while somebody follows: each step as soon as a line was read."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self.lines, self.read = lines, []
        self._steps: list[tuple[str, Callable[[], None]]] = []

    def after(self, text: str, step: Callable[[], None]) -> "Story":
        self._steps.append((text, step))
        return self

    def play(self) -> list[str]:
        for line in self.lines:
            self.read.append(line.text)
            while self._steps and self._steps[0][0] == line.text:
                self._steps.pop(0)[1]()
        return self.read


# --- what was said so far -------------------------------------------------------------------------


def test_rank_0_is_read_unless_another_is_asked_for(api: PodServer, cluster) -> None:
    api.add(job(), pod(rank=0), pod(rank=1))
    api.logs |= {"digits-worker-0": Log(["zero"]), "digits-worker-1": Log(["one"])}
    assert texts(read(cluster, "digits")) == ["zero"]
    assert texts(read(cluster, "digits", [1])) == ["one"]
    assert texts(read(cluster, "digits", None)) == ["zero", "one"]


def test_lines_come_as_they_were_written(api: PodServer, cluster) -> None:
    odd = ["  two  spaces ", "", "\ttab", "Größe 4 µs", "2026-11-21T10:00:00Z looks like a stamp"]
    api.add(job(ranks=1), pod())
    api.logs["digits-worker-0"] = Log(odd)
    assert texts(read(cluster, "digits")) == odd
    api.add(job(ranks=1, end="Succeeded"))
    assert texts(follow(cluster, "digits")) == odd


def test_the_last_lines_are_enough_where_they_are_asked_for(api: PodServer, cluster) -> None:
    api.add(job(end="Succeeded"), pod(state="done"))
    api.logs["digits-worker-0"] = Log([str(n) for n in range(100)])
    assert texts(read(cluster, "digits", part=Part(tail=2))) == ["98", "99"]
    assert texts(follow(cluster, "digits", part=Part(tail=2))) == ["98", "99"]


def test_a_restarted_container_is_asked_for_its_previous_log(api: PodServer, cluster) -> None:
    api.add(job(), pod(restarts=1))
    api.logs |= {"digits-worker-0": Log(["new"]), "digits-worker-0/previous": Log(["old"])}
    assert texts(read(cluster, "digits", previous=True)) == ["old"]


def test_a_replaced_pod_is_the_previous_one(api: PodServer, cluster) -> None:
    late = {"name": "digits-0-bbbbb", "made": "2026-11-21T12:00:00Z", "kind": "Job"}
    api.add(job(kind="Job"), pod(name="digits-0-ccccc", state="failed", kind="Job"), pod(**late))
    api.logs |= {"digits-0-ccccc": Log(["old"]), "digits-0-bbbbb": Log(["new"])}
    assert texts(read(cluster, "digits")) == ["new"]
    assert texts(read(cluster, "digits", previous=True)) == ["old"]


@pytest.mark.parametrize(
    ("given", "error", "line"),
    [
        ({"only": [7]}, UserError, "--rank 7: digits has no pod of this rank now; its ranks: 0, 1"),
        ({"previous": True}, UserError, "--previous: rank 0 of digits has not been restarted"),
        (
            {"only": [1]},
            RunError,
            "digits: rank 1 has no log yet: its image cannot be pulled: no such image; -f waits",
        ),
    ],
)
def test_what_cannot_be_read_is_said(api: PodServer, cluster, given, error, line) -> None:
    api.add(job(), pod(rank=0))
    api.add(pod(rank=1, state="waiting", reason="ErrImagePull", message="no such image"))
    api.logs["digits-worker-0"] = Log(["zero"])
    with pytest.raises(error) as raised:
        texts(read(cluster, "digits", **given))
    assert str(raised.value) == line


def test_a_run_without_pods_says_why(api: PodServer, cluster) -> None:
    with pytest.raises(RunError, match=r"^digits: no such run in namespace lab"):
        texts(read(cluster, "digits"))
    api.add(job(suspend=True, queue="gpus"))
    with pytest.raises(RunError, match=r"no logs: queue gpus has not admitted it yet$"):
        texts(read(cluster, "digits"))
    api.add(job(end="Failed"))
    with pytest.raises(RunError, match=r"no logs: it has failed and its pods were deleted$"):
        texts(read(cluster, "digits"))


# --- following ------------------------------------------------------------------------------------


def test_following_ends_with_the_run(api: PodServer, cluster) -> None:
    log = api.logs["digits-worker-0"] = Log(["first"], ended=False)
    api.add(job(ranks=1), pod())

    def finish() -> None:
        log.say("last", end=True)
        api.add(job(ranks=1, end="Succeeded"), pod(state="done"))

    story = Story(follow(cluster, "digits"))
    story.after("first", lambda: log.say("second")).after("second", finish)
    assert story.play() == ["first", "second", "last"]


def test_all_ranks_are_merged_as_they_speak(api: PodServer, cluster) -> None:
    zero = api.logs["digits-worker-0"] = Log(["zero"], ended=False)
    one = api.logs["digits-worker-1"] = Log([], ended=False)
    api.add(job(), pod(rank=0), pod(rank=1))

    def finish() -> None:
        for log in (zero, one):
            log.say(end=True)
        api.add(job(end="Succeeded"), pod(rank=0, state="done"), pod(rank=1, state="done"))

    story = Story(follow(cluster, "digits", None))
    story.after("zero", lambda: one.say("one")).after("one", lambda: zero.say("zero again"))
    assert story.after("zero again", finish).play() == ["zero", "one", "zero again"]


def test_no_line_is_lost_or_doubled_when_connections_drop(api: PodServer, cluster) -> None:
    lines = [f"round {n}" for n in range(50)]
    log = api.logs["digits-worker-0"] = Log(lines, ended=False, cut_after=[0, 7, 1, 20])
    api.add(job(ranks=1), pod())

    def finish() -> None:
        log.say(end=True)
        api.add(job(ranks=1, end="Succeeded"), pod(state="done"))

    assert Story(follow(cluster, "digits")).after("round 49", finish).play() == lines


def test_lines_of_the_same_moment_are_told_apart(api: PodServer, cluster, monkeypatch) -> None:
    lines = [f"line {n}" for n in range(6)]
    monkeypatch.setattr(
        Log, "stamped", lambda self: [f"2026-11-21T10:00:00.5Z {line}" for line in self.lines]
    )
    log = api.logs["digits-worker-0"] = Log(lines, ended=False, cut_after=[4])
    api.add(job(ranks=1), pod())

    def finish() -> None:
        log.say(end=True)
        api.add(job(ranks=1, end="Succeeded"), pod(state="done"))

    assert Story(follow(cluster, "digits")).after("line 5", finish).play() == lines


@pytest.mark.parametrize(
    ("stamps", "cut_after"),
    [
        # A node that writes in its own time: asked for its 12:00 as ours, it has nothing to say.
        ([f"2026-11-21T12:00:0{n}.5+02:00" for n in range(4)], [2]),
        # stdout and stderr get their stamps and their place in the log independently.
        ([f"2026-11-21T10:00:0{n}.5Z" for n in (1, 0, 3, 2)], []),
    ],
)
def test_no_line_is_lost_whatever_the_clock_of_its_node(
    api: PodServer, cluster, monkeypatch, stamps, cut_after
) -> None:
    lines = [f"line {n}" for n in range(4)]

    def stamped(self: Log) -> list[str]:
        return [f"{stamp} {line}" for stamp, line in zip(stamps, self.lines, strict=True)]

    def since(line: str, time: str) -> bool:
        return datetime.fromisoformat(line.split()[0]) >= datetime.fromisoformat(time)

    def read(self: Log, query: dict[str, str]) -> Iterator[str]:
        time = query.get("sinceTime", "1970-01-01T00:00:00Z")
        left = [line for line in self.stamped() if since(line, time)]
        broken = self.cut_after.pop(0) if self.cut_after else len(left)
        yield from (f"{line}\n" for line in left[:broken])
        if broken < len(left):
            raise ConnectionError

    monkeypatch.setattr(Log, "stamped", stamped)
    monkeypatch.setattr(Log, "read", read)
    api.logs["digits-worker-0"] = Log(lines, cut_after=cut_after)
    api.add(job(ranks=1, end="Succeeded"), pod(state="done"))
    assert texts(follow(cluster, "digits")) == lines


def test_a_container_that_restarts_is_followed_on(api: PodServer, cluster) -> None:
    log = api.logs["digits-worker-0"] = Log(["first life"], ended=False)
    api.add(job(ranks=1), pod())
    mine = next(obj for obj in api.objects.values() if obj["kind"] == "Pod")

    def restart() -> None:
        again = pod(restarts=1)
        again["metadata"]["uid"] = mine["metadata"]["uid"]
        api.logs["digits-worker-0"] = Log(["second life"])
        api.add(again)
        log.say(end=True)

    def finish() -> None:
        api.add(job(ranks=1, end="Succeeded"))

    story = Story(follow(cluster, "digits", part=Part(tail=1)))
    story.after("first life", restart).after("second life", finish)
    assert story.play() == ["first life", "second life"]


def test_the_pod_that_takes_an_evicted_ones_place_is_followed(api: PodServer, cluster) -> None:
    old = api.logs["digits-0-aaaaa"] = Log(["before the eviction"], ended=False)
    api.add(job(kind="Job", ranks=1), pod(kind="Job", name="digits-0-aaaaa"))

    def evict() -> None:
        api.remove("Pod", "digits-0-aaaaa")
        old.say(end=True)
        api.logs["digits-0-bbbbb"] = Log(["a new node", "round 3"])
        late = "2026-11-21T10:09:00Z"
        api.add(pod(kind="Job", name="digits-0-bbbbb", made=late, state="done"))

    def finish() -> None:
        api.add(job(kind="Job", ranks=1, end="Complete"))

    story = Story(follow(cluster, "digits", part=Part(tail=1)))
    story.after("before the eviction", evict).after("round 3", finish)
    assert story.play() == ["before the eviction", "a new node", "round 3"]


def test_who_waits_is_told_once_why(api: PodServer, cluster) -> None:
    api.add(job(ranks=1, suspend=True, queue="gpus"))
    said: list[str] = []

    def notice(text: str) -> None:
        said.append(text)
        if "gpus" in text:
            api.add(job(ranks=1), pod(state="unschedulable"))
        elif "Insufficient" in text:
            api.logs["digits-worker-0"] = Log(["at last"])
            api.add(job(ranks=1, end="Succeeded"), pod(state="done"))

    assert texts(follow(cluster, "digits", notice=notice)) == ["at last"]
    assert said == [
        "digits waits: queue gpus has not admitted it yet",
        "rank 0 waits: no node fits: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
    ]


def test_a_run_that_is_deleted_ends_its_followers(api: PodServer, cluster) -> None:
    log = api.logs["digits-worker-0"] = Log(["alive"], ended=False)
    api.add(job(ranks=1), pod())

    def delete() -> None:
        api.remove("PyTorchJob", "digits")
        api.remove("Pod", "digits-worker-0")
        log.say(end=True)

    assert Story(follow(cluster, "digits")).after("alive", delete).play() == ["alive"]


def test_nothing_is_left_behind_when_nobody_follows_any_more(api: PodServer, cluster) -> None:
    before = set(threading.enumerate())
    log = api.logs["digits-worker-0"] = Log([str(n) for n in range(10)], ended=False)
    api.add(job(ranks=1), pod())
    lines = follow(cluster, "digits")
    assert next(lines).text == "0"
    lines.close()
    log.say("one more", end=True)
    ends = time.monotonic() + patience.seconds(10)
    while (left := _readers() - before) and time.monotonic() < ends:
        time.sleep(0.02)
    assert not left


def _readers() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if "_read" in t.name}


# --- the command ----------------------------------------------------------------------------------


def test_logs_of_one_rank_are_bare(api: PodServer, fedctl) -> None:
    api.add(job(), pod(rank=0), pod(rank=1))
    api.logs |= {"digits-worker-0": Log(["a", "b"]), "digits-worker-1": Log(["c"])}
    assert fedctl("logs", "digits").stdout == "a\nb\n"
    assert fedctl("logs", "digits", "--rank", "1").stdout == "c\n"
    assert fedctl("logs", "digits", "--all").stdout == "0 │ a\n0 │ b\n1 │ c\n"


def test_logs_as_json_are_an_object_a_line(api: PodServer, fedctl) -> None:
    api.add(job(ranks=1), pod())
    api.logs["digits-worker-0"] = Log(['{"not": "ours"}'])
    (line,) = fedctl("logs", "digits", "-o", "json").stdout.splitlines()
    told = {"rank": 0, "pod": "digits-worker-0", "line": '{"not": "ours"}'}
    assert json.loads(line) == told


@pytest.mark.parametrize(("end", "code"), [("Succeeded", 0), ("Failed", 1)])
def test_the_exit_code_of_following_is_the_runs(api: PodServer, fedctl, end, code) -> None:
    api.add(job(end=end), pod(state="done" if code == 0 else "failed"))
    api.logs["digits-worker-0"] = Log(["done"])
    followed = fedctl("logs", "-f", "digits")
    assert (followed.exit_code, followed.stdout) == (code, "done\n")
    assert followed.stderr == ("" if code == 0 else "error: digits has failed: it is over\n")
    assert fedctl("logs", "digits").exit_code == 0  # who only looks has seen what there was


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--rank", "1", "--all"], "--rank 1: conflicts with --all; drop one of them"),
        (["-f", "--previous"], "--previous: conflicts with -f, since that log has ended; drop one"),
        (["--since", "soon"], "Invalid value for '--since': 'soon' is not a duration; write 90s"),
        (["-f", "--rank", "9"], "--rank 9: digits has 2 ranks, 0 to 1"),
    ],
)
def test_what_makes_no_sense_is_refused(api: PodServer, fedctl, words, line) -> None:
    api.add(job(), pod(rank=0), pod(rank=1))
    refused = fedctl("logs", "digits", *words)
    assert refused.exit_code == 2
    assert line in refused.stderr
