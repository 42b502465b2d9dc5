"""Owns the control plane: etcd, API server, controllers, scheduler, and who may talk to it."""

import json
import secrets
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from tests.cluster.stack.processes import Processes, run

SERVICES = "10.96.0.0/16"
ADDRESS = "10.96.0.1"  # of the Service `kubernetes`: held by the bridge, so pods need no kube-proxy
# The scheduler's own gangs, which Kubernetes 1.36 has behind a gate.
GANGS = "--feature-gates=GenericWorkload=true,GangScheduling=true"
USERS = {
    # user -> groups; RBAC's own roles then say what each may do
    "admin": "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
    "system:coredns": "",
    "researcher": "researchers",
}


class ControlPlane:
    """One of each, on this machine; state under `folder`."""

    def __init__(
        self, programs: Path, folder: Path, processes: Processes, nodes: list[str]
    ) -> None:
        self.programs, self.folder, self.processes = programs, folder, processes
        self.tokens = {user: secrets.token_hex(16) for user in USERS}
        self.tokens |= {f"system:node:{node}": secrets.token_hex(16) for node in nodes}
        self.server = f"https://{ADDRESS}:443"

    def start(self) -> None:
        self._etcd()
        self._api_server()
        self._others()

    def kubeconfig(self, user: str, namespace: str = "default") -> Path:
        """A file for `user`; JSON is YAML."""
        cluster = {
            "server": self.server,
            "certificate-authority": str(self.folder / "pki/apiserver.crt"),
        }
        context = {"cluster": "test", "user": user, "namespace": namespace}
        path = self.folder / f"{user.replace(':', '-')}.kubeconfig"
        text = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": user,
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": self.tokens[user]}}],
            "contexts": [{"name": user, "context": context}],
        }
        path.write_text(json.dumps(text, indent=2))
        path.chmod(0o600)
        return path

    def _etcd(self) -> None:
        url = "http://127.0.0.1:23790"
        self.processes.start(
            "etcd",
            [
                self.programs / "server",
                f"--data-dir={self.folder / 'etcd'}",
                f"--listen-client-urls={url}",
                f"--advertise-client-urls={url}",
                "--listen-peer-urls=http://127.0.0.1:23800",
                "--unsafe-no-fsync",  # this cluster need not survive a power cut
                "--log-level=warn",
            ],
        )
        self.processes.wait("etcd", lambda: _answers(f"{url}/health"))

    def _api_server(self) -> None:
        key, users = self.folder / "service-accounts.key", self.folder / "users.csv"
        run("openssl", "genrsa", "-out", key, "2048")
        groups = {
            **USERS,
            **{u: "system:nodes" for u in self.tokens if u.startswith("system:node:")},
        }
        users.write_text("".join(f'{t},{u},{u},"{groups[u]}"\n' for u, t in self.tokens.items()))
        users.chmod(0o600)
        self.processes.start(
            "kube-apiserver",
            [
                self.programs / "kube-apiserver",
                "--etcd-servers=http://127.0.0.1:23790",
                f"--bind-address={ADDRESS}",
                f"--advertise-address={ADDRESS}",
                "--secure-port=443",
                f"--cert-dir={self.folder / 'pki'}",
                f"--service-cluster-ip-range={SERVICES}",
                f"--service-account-issuer={self.server}",
                f"--service-account-key-file={key}",
                f"--service-account-signing-key-file={key}",
                f"--token-auth-file={users}",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--enable-aggregator-routing=true",  # webhooks are called by pod address
                "--allow-privileged=true",
                "--runtime-config=scheduling.k8s.io/v1alpha2=true",
                GANGS,
                "--kubelet-preferred-address-types=InternalIP",
                "--v=1",
            ],
        )
        self.processes.wait("kube-apiserver", self._ready)

    def _ready(self) -> bool:
        authority = self.folder / "pki/apiserver.crt"
        return authority.exists() and _answers(
            f"{self.server}/readyz", authority, self.tokens["admin"]
        )

    def _others(self) -> None:
        manager = self.kubeconfig("system:kube-controller-manager")
        self.processes.start(
            "kube-controller-manager",
            [
                self.programs / "kube-controller-manager",
                f"--kubeconfig={manager}",
                f"--service-account-private-key-file={self.folder / 'service-accounts.key'}",
                f"--root-ca-file={self.folder / 'pki/apiserver.crt'}",
                "--use-service-account-credentials=true",
                "--leader-elect=false",
                "--node-monitor-grace-period=20s",
                GANGS,
            ],
        )
        self.processes.start(
            "kube-scheduler",
            [
                self.programs / "kube-scheduler",
                f"--kubeconfig={self.kubeconfig('system:kube-scheduler')}",
                "--leader-elect=false",
                GANGS,
            ],
        )


def _answers(url: str, authority: Path | None = None, token: str = "") -> bool:
    try:
        context = ssl.create_default_context(cafile=str(authority)) if authority else None
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=2, context=context) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError):
        return False
