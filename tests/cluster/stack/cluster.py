"""Owns the cluster as a whole: up with everything, down without a trace."""

import fcntl
import os
from pathlib import Path

from tests.cluster.stack import images, leftovers, nodes, parts
from tests.cluster.stack.addons import Addons
from tests.cluster.stack.control import ControlPlane
from tests.cluster.stack.processes import Failed, Processes

FOLDER = Path("/var/tmp/fedctl-cluster")  # a machine has one: addresses and cgroups are its own
LOCK = Path("/run/fedctl-cluster.lock")


class Cluster:
    """Two nodes, DNS, storage, and the operators of PyTorchJob, TrainJob, JobSet and Kueue."""

    def __init__(self, folder: Path = FOLDER) -> None:
        parts.ensure()
        self._lock()
        leftovers.remove(folder)
        folder.mkdir(parents=True, mode=0o755)
        self.folder = folder
        self.processes = Processes(folder / "logs")
        self.plane = ControlPlane(parts.PROGRAMS, folder, self.processes, nodes.NAMES)
        self.nodes = [
            nodes.Node(index, parts.PROGRAMS, folder, self.processes)
            for index in range(len(nodes.NAMES))
        ]

    def _lock(self) -> None:
        """Until this process ends: what another one has running is not taken for left over."""
        self.lock = LOCK.open("a+")
        self.lock.seek(0)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            told = self.lock.read()
            raise Failed(f"a machine has one cluster, and process {told} has it up") from None
        self.lock.truncate(0)
        self.lock.write(str(os.getpid()))
        self.lock.flush()

    def up(self, image: Path | None = None) -> None:
        """Start all; `image`: an archive that every node gets."""
        nodes.make_network(self.folder)
        self.plane.start()
        self.addons = Addons(self.plane, self.folder, self.processes)
        pause = self.folder / "pause.tar"
        images.archive(parts.PROGRAMS / "pause", nodes.PAUSE, pause, "/pause")
        for node in self.nodes:
            node.start(self.plane)
            node.load(pause)
        self.addons.start_dns()
        self.addons.add_storage()
        self.addons.load_operators(self.nodes)
        self.addons.start_operators()
        if image:
            self.load(image)

    def load(self, image: Path) -> None:
        for node in self.nodes:
            node.load(image)

    def kubeconfig(self, user: str = "admin", namespace: str = "default") -> Path:
        return self.plane.kubeconfig(user, namespace)

    def down(self) -> None:
        self.processes.stop_all()
        leftovers.remove(self.folder)
        self.lock.close()
