"""The disk fills, memory ends, a port or a name is missing: around a real run."""

import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedctl.report import runs
from tests.faults.conftest import ROUNDS
from tests.faults.scene import Scene, bits, fault
from tests.faults.spaces import Namespace, namespace
from tests.faults.table import Fault
from tests.fedctl.processes import ended


class Disk(Namespace):
    """A small disk at the scene's `disk`, with the run folder on it."""

    def __init__(self, scene: Scene, size: str) -> None:
        super().__init__("--mount")
        self.scene, self.place = scene, scene.folder / "disk"
        self.place.mkdir()
        self.do("mount", "-t", "tmpfs", "-o", f"size={size}", "none", self.place)
        scene.inside(self.enter, Path(f"/proc/{self.pid}/root{self.place}/out"), self.place / "out")

    def remount(self, options: str) -> None:
        self.do("mount", "-o", f"remount,{options}", self.place)


@contextmanager
def disk(scene: Scene, size: str) -> Iterator[Disk]:
    made = Disk(scene, size)
    try:
        yield made
    finally:
        made.close()


@fault("disk-full-at-start", quick=True)
def test_a_disk_too_small_for_a_checkpoint(scene: Scene, fault: Fault) -> None:
    with disk(scene, "68k"):
        end = scene.end(scene.run(rounds=ROUNDS))
        scene.judge(fault, end)
        assert f"the disk of {scene.folder}/disk" in end[2]


@fault("disk-full")
def test_with_room_again_the_run_ends_in_the_same_bits(
    scene: Scene, fault: Fault, undisturbed: Any
) -> None:
    with disk(scene, "200k") as small:
        scene.shows(fault, scene.run("checkpoint.keep=9", rounds=ROUNDS))
        assert 0 < runs.checkpoint_round(scene.out) < ROUNDS
        small.remount("size=64m")
        scene.finishes()
        assert bits(scene.out) == undisturbed


@fault("disk-full-at-report")
def test_a_finished_run_without_room_for_its_report(scene: Scene, fault: Fault) -> None:
    with disk(scene, "200k"):
        scene.shows(fault, scene.run(rounds=12))
        assert runs.finished(scene.out)


@fault("folder-removed")
def test_a_folder_that_is_removed(scene: Scene, fault: Fault) -> None:
    """Under ranks that write into it, so that some of it may stay, or come back."""
    process = scene.run()
    scene.reach(4)
    shutil.rmtree(scene.out, ignore_errors=True)
    # which can miss a file, if others write into the folder while it is listed
    (scene.out / runs.EXPERIMENT).unlink(missing_ok=True)
    scene.shows(fault, process)
    assert not (scene.out / runs.EXPERIMENT).exists()


@fault("folder-removed")
def test_a_folder_that_is_moved(scene: Scene, fault: Fault) -> None:
    process = scene.run()
    scene.reach(4)
    elsewhere = scene.folder / "elsewhere"
    scene.out.rename(elsewhere)
    scene.shows(fault, process)
    elsewhere.rename(scene.out)  # as the line says
    scene.finishes("--set", f"rounds={runs.checkpoint_round(scene.out) + 2}")


@fault("out-of-memory")
def test_an_allocation_that_fails(scene: Scene, fault: Fault) -> None:
    """A limit makes it fail: a kernel may promise more than there is, and kill a process later."""
    limit = f"--as={6 << 30}"
    process = scene.run("data.resize=1500", prefix=["prlimit", limit], ranks=1)
    scene.shows(fault, process)


@fault("port-taken")
def test_a_port_that_is_taken(scene: Scene, fault: Fault) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        scene.shows(fault, scene.run(f"metrics.port={taken.getsockname()[1]}"))
    assert not scene.out.exists()


@fault("no-loopback")
def test_without_a_loopback_interface(scene: Scene, fault: Fault) -> None:
    with namespace("--net") as apart:
        scene.inside(apart.enter)
        scene.shows(fault, scene.run())
        apart.do("ip", "link", "set", "lo", "up")  # as the line says
        process = scene.run()
        scene.reach(2)
        process.send_signal(signal.SIGTERM)
        assert ended(process)[0] == 130


@fault("no-host-name")
def test_a_name_of_this_machine_that_does_not_resolve(
    scene: Scene, fault: Fault, undisturbed: Any
) -> None:
    with namespace("--uts", "--mount") as apart:
        hosts = scene.folder / "hosts"
        hosts.write_text("127.0.0.1 localhost\n")
        apart.do("hostname", "nowhere.invalid")
        apart.do("mount", "--bind", hosts, "/etc/hosts")
        scene.inside(apart.enter)
        scene.shows(fault, scene.run(rounds=ROUNDS))
        assert bits(scene.out) == undisturbed


@fault("foreign-variables")
def test_variables_of_others_are_ignored(scene: Scene, fault: Fault, undisturbed: Any) -> None:
    foreign = {"PET_NNODES": "2", "PET_NODE_RANK": "1", "RANK": "7", "WORLD_SIZE": "9"}
    foreign |= {"MASTER_ADDR": "no.such.host", "MASTER_PORT": "1", "LOCAL_RANK": "5"}
    foreign |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "JOB_COMPLETION_INDEX": "3"}
    foreign |= {"GLOO_SOCKET_IFNAME": "none0", "FEDCTL_DEADLINE_SECONDS": "1"}
    scene.shows(fault, scene.run(rounds=ROUNDS, environment=foreign))
    assert bits(scene.out) == undisturbed
