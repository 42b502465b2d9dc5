"""Owns what runs on top of the control plane: DNS, storage, and the operators in their own pods."""

import json
from pathlib import Path

from tests import patience
from tests.cluster.stack import images, parts
from tests.cluster.stack.control import ControlPlane
from tests.cluster.stack.nodes import DNS, Node
from tests.cluster.stack.processes import Processes, run

COREDNS = """
.:53 {{
  bind {address}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {kubeconfig}
  }}
  cache 1
}}
"""
VOLUMES = 80
READS = {  # what CoreDNS must see, by API group
    "": ["endpoints", "services", "pods", "namespaces"],
    "discovery.k8s.io": ["endpointslices"],
}


class Addons:
    def __init__(self, plane: ControlPlane, folder: Path, processes: Processes) -> None:
        self.plane, self.folder, self.processes = plane, folder, processes
        self.admin = plane.kubeconfig("admin")

    def kubectl(self, *words: str | Path, given: str | None = None) -> str:
        return run(parts.PROGRAMS / "kubectl", f"--kubeconfig={self.admin}", *words, given=given)

    def apply(self, *objects: dict) -> None:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("apply", "--server-side", "-f", "-", given=text)

    def start_dns(self) -> None:
        """On the bridge's address, where kubelets send all pods; it asks no server above."""
        rules = [
            {"apiGroups": [group], "resources": names, "verbs": ["list", "watch"]}
            for group, names in READS.items()
        ]
        about = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "metadata": {"name": "system:coredns"},
        }
        role = {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "system:coredns",
        }
        user = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:coredns"}
        self.apply(
            {**about, "kind": "ClusterRole", "rules": rules},
            {**about, "kind": "ClusterRoleBinding", "roleRef": role, "subjects": [user]},
        )
        file = self.folder / "Corefile"
        kubeconfig = self.plane.kubeconfig("system:coredns")
        file.write_text(COREDNS.format(address=DNS, kubeconfig=kubeconfig))
        self.processes.start("coredns", [parts.PROGRAMS / "coredns", "-conf", file])

    def add_storage(self) -> None:
        """A default class whose volumes are there beforehand: folders that all nodes share."""
        kind = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass"}
        default = {"storageclass.kubernetes.io/is-default-class": "true"}
        meta = {"name": "shared", "annotations": default}
        self.apply(
            {**kind, "metadata": meta, "provisioner": "kubernetes.io/no-provisioner"},
            *(self._volume(number) for number in range(VOLUMES)),
        )

    def _volume(self, number: int) -> dict:
        place = self.folder / "volumes" / f"{number:03d}"
        place.mkdir(parents=True)
        place.chmod(0o777)  # as shared storage behaves that ignores a pod's fsGroup
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"shared-{number:03d}"},
            "spec": {
                "storageClassName": "shared",
                "capacity": {"storage": "1Ti"},
                "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": str(place)},
            },
        }

    def load_operators(self, nodes: list[Node]) -> None:
        for operator, (_module, _overlay, program) in parts.OPERATORS.items():
            tar = self.folder / f"{operator}.tar"
            images.archive(parts.PROGRAMS / program, parts.image(operator), tar)
            for node in nodes:
                node.load(tar)
            tar.unlink()

    def start_operators(self) -> None:
        """Apply all, then wait for all: each needs some seconds to make its certificates."""
        for operator in parts.OPERATORS:
            file = parts.MANIFESTS / f"{operator}.json"
            # Custom kinds only exist once their definitions are established, so in two passes.
            self.kubectl("apply", "--server-side", "--force-conflicts", "-f", file)
        self.kubectl(
            "wait",
            "deployment",
            "--all",
            "--all-namespaces",
            "--for=condition=Available",
            f"--timeout={patience.text(180)}",
        )
