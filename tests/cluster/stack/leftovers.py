"""Owns what a cluster leaves behind when it is not stopped in order: finds and removes it.

A kubelet that is killed leaves its pods running, as it should; here they go with the cluster.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster.stack.nodes import BRIDGE, CGROUPS, SOCKETS
from tests.cluster.stack.parts import PROGRAMS


def remove(folder: Path) -> None:
    """All of the cluster under `folder`: processes, pods, mounts, network, cgroups, files."""
    _end(lambda: _mentioning(str(folder), str(SOCKETS)))
    _end(_in_our_cgroups)
    for mount in reversed(_mounts(folder, SOCKETS)):
        subprocess.run(["umount", "--lazy", mount], capture_output=True)
    for link in _links():
        subprocess.run(["ip", "link", "delete", link], capture_output=True)
    for group in sorted(CGROUPS.glob("*/fedctl-node-*/**/"), reverse=True):
        with contextlib.suppress(OSError):  # its last process is still on its way out
            group.rmdir()
    shutil.rmtree(SOCKETS, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def chains() -> set[str]:
    """The firewall's chains that Kubernetes has made on this machine, ours or another's."""
    found = set()
    for program in ("iptables-save", "ip6tables-save"):
        if shutil.which(program):
            lines = subprocess.run([program], capture_output=True, text=True).stdout.splitlines()
            found |= {f"{program} {line.split()[0]}" for line in lines if line[:6] == ":KUBE-"}
    return found


def _end(find: Callable[[], list[int]]) -> None:
    """Ask what `find` finds to end, then make it."""
    for number, seconds in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        end = time.monotonic() + seconds
        for pid in find():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        while find() and time.monotonic() < end:
            time.sleep(0.1)


def _mentioning(*paths: str) -> list[int]:
    found, programs = [], {path.name for path in PROGRAMS.glob("*")} - {"kubectl"}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in (os.getpid(), os.getppid()):
            try:
                words = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            except OSError:
                continue
            # Our programs, at work for this cluster; not a person's, who looks at its files.
            ours = Path(words[0]).name in programs
            if ours and any(path in word for word in words for path in paths):
                found.append(int(entry.name))
    return found


def _in_our_cgroups() -> list[int]:
    pids: set[int] = set()
    for procs in CGROUPS.glob("*/fedctl-node-*/**/cgroup.procs"):
        try:
            pids |= {int(pid) for pid in procs.read_text().split()}
        except OSError:
            continue
    return sorted(pids)


def _mounts(*folders: Path) -> list[str]:
    places = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return [place for place in places if any(place.startswith(f"{f}/") for f in folders)]


def _links() -> list[str]:
    told = subprocess.run(
        ["ip", "-o", "link", "show", "master", BRIDGE], capture_output=True, text=True
    )
    ours = [line.split(":")[1].split("@")[0].strip() for line in told.stdout.splitlines()]
    return [*ours, BRIDGE]
