"""Owns a cluster on one machine: ranks in network namespaces of their own, joined by a bridge.

Each rank is started as a pod is, with its place in the environment, meets the others over TCP, and
sends all that it has to say to them through one interface, whose rate can be limited and whose
counters say what went through it. It needs Linux and root.

    rank 0: eth0 ---- port0 |
    rank 1: eth0 ---- port1 | hub: a bridge
    rank 2: eth0 ---- port2 |
"""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bench.harness import ROOT
from bench.spaces import Namespace, NoNamespaces
from trainer.config.schema import Experiment

NETWORK = "10.78.0"
PORT = "29512"
LOOK_SECONDS = 0.05
HEADERS = 14 + 20 + 32  # bytes of a packet: Ethernet, IPv4, TCP with its timestamps
BURST_SECONDS = 0.01  # of the rate: what a token bucket lets through at once
LEAST_BURST = 32 * 1024  # bytes
QUEUE_SECONDS = 0.4  # what a bucket holds back before it drops packets


class Failed(Exception):
    """A rank did not end well; its text is the end of what all of them printed."""


class Sent(NamedTuple):
    """What an interface has transmitted: bytes of whole packets, and their number."""

    bytes: int
    packets: int

    def since(self, before: "Sent") -> "Sent":
        return Sent(self.bytes - before.bytes, self.packets - before.packets)

    @property
    def stream(self) -> int:
        """Bytes that the packets carried.

        The interface counts a packet once, with its headers, also if it is larger than a segment
        because a real card would have cut it up (TSO). The first packets of a connection have 8
        bytes more, and those that resolve addresses 24 less than this takes off.
        """
        return self.bytes - HEADERS * self.packets


class Pods:
    """Namespaces for `count` ranks; `close` ends them."""

    def __init__(self, count: int) -> None:
        self.ranks: list[subprocess.Popen[bytes]] = []
        self.spaces: list[Namespace] = []
        try:
            self.hub = self._space()
            self._try(self.hub, "ip", "link", "add", "hub", "type", "bridge")
            self.hub.do("ip", "link", "set", "hub", "addrgenmode", "none", "up")
            self.pods = [self._pod(number) for number in range(count)]
        except BaseException:
            self.close()
            raise

    def _space(self) -> Namespace:
        self.spaces.append(Namespace("--net"))
        return self.spaces[-1]

    def _try(self, space: Namespace, *words: object) -> None:
        """Do what a kernel may lack."""
        command = [*space.enter, *map(str, words)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise NoNamespaces(str(error)) from None
        if done.returncode:
            raise NoNamespaces(f"{' '.join(map(str, words))}: {done.stderr.strip()}")

    def _pod(self, number: int) -> Namespace:
        space, hub, port = self._space(), self.hub, f"port{number}"
        peer = ["peer", "name", "eth0", "netns", space.pid]
        self._try(hub, "ip", "link", "add", port, "type", "veth", *peer)
        # without addresses of IPv6, whose neighbours would be looked for
        hub.do("ip", "link", "set", port, "master", "hub", "addrgenmode", "none", "up")
        space.do("ip", "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
        space.do("ip", "link", "set", "eth0", "addrgenmode", "none", "up")
        space.do("ip", "link", "set", "lo", "up")
        return space

    def address(self, number: int) -> str:
        return f"{NETWORK}.{number + 1}"

    def limit(self, mbit: int) -> None:
        """Let each interface send, and receive, at most so many Mbit/s (a token bucket).

        Nothing is delayed: what is queued is, by its bytes.
        """
        burst = max(LEAST_BURST, round(mbit * 1e6 / 8 * BURST_SECONDS))
        queue = round(mbit * 1e6 / 8 * QUEUE_SECONDS)
        rule = ["tbf", "rate", f"{mbit}mbit", "burst", burst, "limit", burst + queue]
        for number, pod in enumerate(self.pods):
            for space, device in ((pod, "eth0"), (self.hub, f"port{number}")):
                self._try(space, "tc", "qdisc", "replace", "dev", device, "root", *rule)

    def most_segments(self, count: int) -> None:
        """Let a packet of an interface hold at most so many segments."""
        for pod in self.pods:
            pod.do("ip", "link", "set", "dev", "eth0", "gso_max_segs", count)

    def sent(self) -> list[Sent]:
        """What each rank has transmitted so far."""
        return [counters(pod.pid, "eth0") for pod in self.pods]

    def train(self, experiment: Experiment, out: Path, seconds: float) -> list[Sent]:
        """Train in the new folder `out`; return what each rank has transmitted for it."""
        before = self.sent()
        self._start(experiment, out)
        try:
            self._wait(out, time.monotonic() + seconds)
        finally:
            self._end()
        return [now.since(was) for now, was in zip(self.sent(), before, strict=True)]

    def _start(self, experiment: Experiment, out: Path) -> None:
        out.mkdir(parents=True)
        given = out / "given.json"
        given.write_text(experiment.canonical())
        group = {
            "WORLD_SIZE": str(len(self.pods)),
            "MASTER_ADDR": self.address(0),
            "MASTER_PORT": PORT,
            "GLOO_SOCKET_IFNAME": "eth0",
            "OMP_NUM_THREADS": "1",
        }
        words = [sys.executable, "-m", "trainer", given, "--out", out]
        for number, pod in enumerate(self.pods):
            environment = {**os.environ, **group, "RANK": str(number)}
            command = [*pod.enter, *map(str, words)]
            with (out / "output").open("ab") as log:
                self.ranks.append(
                    subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)
                )

    def _wait(self, out: Path, until: float) -> None:
        codes: list[int | None] = [None]
        while None in codes:
            time.sleep(LOOK_SECONDS)
            codes = [rank.poll() for rank in self.ranks]
            if any(codes) or time.monotonic() > until:
                tail = (out / "output").read_text("utf-8", "replace")[-3000:]
                raise Failed(f"the ranks' exit codes are {codes} (None: still running)\n{tail}")

    def _end(self) -> None:
        for rank in self.ranks:
            with suppress(ProcessLookupError):
                rank.kill()
            rank.wait()
        self.ranks = []

    def close(self) -> None:
        self._end()
        for space in self.spaces:
            space.close()


def counters(pid: int, device: str) -> Sent:
    """The counters of an interface in the namespace of a process, as of /sys/class/net.

    /sys shows the interfaces of the namespace in which it was mounted; /proc those of the process.
    """
    for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == device:
            fields = numbers.split()
            return Sent(int(fields[8]), int(fields[9]))
    raise LookupError(device)
