"""Owns the nodes: a bridge, and per node a containerd and a kubelet that run pods in cgroups.

All nodes are this machine. They differ in address, containerd, kubelet and cgroup, and share the
bridge, so that pods of two nodes reach each other.
"""

import json
import subprocess
from pathlib import Path

from tests.cluster.stack.control import ADDRESS, ControlPlane
from tests.cluster.stack.processes import Processes, run

BRIDGE = "fedctl0"
NAMES = ["node-1", "node-2"]
PODS = "10.244.0.0/24"
DNS = "10.244.0.1"
PAUSE = "localhost/pause:1"
CGROUPS = Path("/sys/fs/cgroup")
SOCKETS = Path("/run/fedctl-cluster")  # short: the path of a socket may have 107 characters


def address(node: int) -> str:
    return f"10.244.0.{node + 1}"


def make_network(folder: Path) -> None:
    """The bridge with the nodes' and the API server's addresses, and what CNI is told of it."""
    subprocess.run(["ip", "link", "delete", BRIDGE], capture_output=True)
    # Of its own, for good: else it takes a port's, and as pods come and go the others lose it.
    run("ip", "link", "add", BRIDGE, "address", "0a:58:0a:f4:00:01", "type", "bridge")
    for own in [*(f"{address(i)}/24" for i in range(len(NAMES))), f"{ADDRESS}/32"]:
        run("ip", "address", "add", own, "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    ipam = {
        "type": "host-local",
        "dataDir": str(folder / "addresses"),  # one for all nodes: no address is given twice
        "ranges": [[{"subnet": PODS, "rangeStart": "10.244.0.20", "gateway": DNS}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": BRIDGE, "isGateway": False, "ipam": ipam}
    text = {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}
    (folder / "cni").mkdir(parents=True, exist_ok=True)
    (folder / "cni/pods.conflist").write_text(json.dumps(text))


class Node:
    """A containerd and a kubelet; `folder` is the node's own."""

    def __init__(self, index: int, programs: Path, folder: Path, processes: Processes) -> None:
        self.index, self.name = index, NAMES[index]
        self.programs, self.folder, self.processes = programs, folder / NAMES[index], processes
        self.shared = folder
        self.socket = SOCKETS / self.name / "containerd.sock"

    def start(self, plane: ControlPlane) -> None:
        self._containerd()
        self._kubelet(plane)

    def load(self, image: Path) -> None:
        """Put an image archive where this node's kubelet finds it."""
        run(*self._ctr(), "images", "import", "--local", image)

    def _ctr(self) -> list[str | Path]:
        return [self.programs / "ctr", "--address", self.socket, "--namespace", "k8s.io"]

    def _containerd(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.socket.parent.mkdir(parents=True, exist_ok=True)
        config = self.folder / "containerd.toml"
        config.write_text(
            f'''version = 3
root = "{self.folder / "containerd"}"
state = "{self.socket.parent / "containerd"}"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
address = "{self.socket}"
[ttrpc]
address = "{self.socket}.ttrpc"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE}"
[plugins."io.containerd.cri.v1.runtime"]
disable_apparmor = true
restrict_oom_score_adj = true  # where root may not lower it, as in a sandbox
netns_mounts_under_state_dir = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{self.programs}"]
conf_dir = "{self.shared / "cni"}"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
runtime_path = "{self.programs / "containerd-shim-runc-v2"}"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "{self.programs / "runc"}"
SystemdCgroup = false
'''
        )
        name = f"containerd-{self.name}"
        self.processes.start(name, [self.programs / "containerd", "--config", config])
        up = [*map(str, self._ctr()), "version"]
        self.processes.wait(name, lambda: not subprocess.run(up, capture_output=True).returncode)

    def _kubelet(self, plane: ControlPlane) -> None:
        root = f"/fedctl-{self.name}"
        for controller in CGROUPS.iterdir():
            if (controller / "cgroup.procs").exists():
                (controller / root.strip("/")).mkdir(exist_ok=True)
        settings = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": address(self.index),
            "port": 10250,
            "healthzBindAddress": address(self.index),
            # Only this machine and its pods reach the bridge.
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": root,
            "enforceNodeAllocatable": ["pods"],
            "failCgroupV1": False,  # where the machine still has version 1
            "failSwapOn": False,
            "clusterDNS": [DNS],
            "clusterDomain": "cluster.local",
            "resolvConf": str(self._resolv()),
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "syncFrequency": "5s",  # the certificates of webhooks reach their pods sooner
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "makeIPTablesUtilChains": False,  # for others than kubelets, and it never removes them
            "maxPods": 60,
            "podLogsDir": str(self.folder / "logs"),  # a kubelet removes logs of pods it has not
            "registryPullQPS": 0,
            "serializeImagePulls": False,
            "shutdownGracePeriod": "0s",
        }
        config = self.folder / "kubelet.json"
        config.write_text(json.dumps(settings, indent=2))
        self.processes.start(
            f"kubelet-{self.name}",
            [
                self.programs / "kubelet",
                f"--config={config}",
                f"--kubeconfig={plane.kubeconfig(f'system:node:{self.name}')}",
                f"--hostname-override={self.name}",
                f"--node-ip={address(self.index)}",
                f"--root-dir={self.folder / 'kubelet'}",
                f"--cert-dir={self.folder / 'pki'}",
                "--v=1",
            ],
        )

    def _resolv(self) -> Path:
        path = self.folder / "resolv.conf"
        path.write_text("")  # pods ask the cluster's DNS, and that asks nobody
        return path
