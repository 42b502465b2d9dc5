"""Proxies to an API server: found as kubectl finds them, and used by requests and by exec."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fedctl.cluster.api import client, kubeconfig, proxy
from fedctl.errors import FedctlError, UserError
from tests.fedctl.apiserver import ApiServer

PROXY = {"HTTPS_PROXY": "http://proxy:3128"}


@pytest.mark.parametrize(
    ("server", "rules", "direct"),
    [
        ("https://api.lab.example:6443", "", False),
        ("https://localhost:6443", "", True),
        ("https://127.0.0.1:6443", "", True),
        ("https://127.8.8.8", "", True),
        ("https://[::1]:6443", "", True),
        ("https://api.lab.example", "*", True),
        ("https://api.lab.example", "lab.example", True),
        ("https://api.lab.example", ".lab.example", True),
        ("https://api.lab.example", "*.lab.example", True),
        ("https://lab.example", ".lab.example", False),
        ("https://apilab.example", "lab.example", False),
        ("https://API.lab.example", "api.LAB.example", True),
        ("https://10.96.0.1", "10.96.0.0/12", True),
        ("https://10.112.0.1", "10.96.0.0/12", False),
        ("https://10.96.0.1", " 192.168.0.0/16 , 10.96.0.1 ", True),
        ("https://[fd00::1]", "fd00::/8", True),
        ("https://10.96.0.1", "fd00::/8", False),
        ("https://10.96.0.1:6443", "10.96.0.1:6443", True),
        ("https://10.96.0.1:6443", "10.96.0.1:443", False),
        ("https://api.lab.example", "api.lab.example:443", True),
        ("https://api.lab.example:6443", "api.lab.example:443", False),
        ("https://api.lab.example", "1.2.3.4,,example.org", False),
    ],
)
def test_what_goes_directly(server: str, rules: str, direct: bool) -> None:
    found = proxy.of(server, {**PROXY, "NO_PROXY": rules})
    assert found == (None if direct else "http://proxy:3128")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("proxy:3128", "http://proxy:3128"),
        ("proxy", "http://proxy:80"),
        ("https://proxy", "https://proxy:443"),
        ("me:s%40cret@proxy:1", "http://me:s%40cret@proxy:1"),
        ("[fd00::1]:3128", "http://[fd00::1]:3128"),
    ],
)
def test_an_address_may_lack_scheme_and_port(text: str, url: str) -> None:
    assert proxy.of("https://api.lab.example", {"https_proxy": text}) == url
    assert proxy.of("https://api.lab.example", {"HTTPS_PROXY": text, "https_proxy": "x"}) == url
    assert proxy.of("http://api.lab.example", {"HTTPS_PROXY": text}) is None


@pytest.mark.parametrize("login", ["me:hunter2hunter2", "me:hunt/er2#?@", "http://me:hunter2"])
def test_an_error_shows_no_login(login: str) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        with pytest.raises(UserError) as error:
            proxy.of("https://a.example", {name: f"{login}@proxy:99999"})
        assert str(error.value) == (
            "HTTPS_PROXY: 'proxy:99999' is not the address of a proxy; write http://HOST:PORT"
        )


@given(st.text())
def test_every_other_address_is_one_line(text: str) -> None:
    try:
        found = proxy.of("https://a.example", {"HTTPS_PROXY": text, "NO_PROXY": text})
        assert found is None or urlsplit(found).port is not None
    except UserError as error:
        assert str(error).startswith("HTTPS_PROXY: ") and "\n" not in str(error)


@pytest.fixture
def dead() -> Iterator[str]:
    """A proxy that counts connections and answers none."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        asked: list[bytes] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    asked.append(connection.recv(200))

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        assert asked == []
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"])
def test_a_server_on_this_machine_is_reached_without_the_proxy(
    apiserver: ApiServer, dead: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, dead)
    cluster = client.connect()
    assert cluster.list("Pod") == []
    with pytest.raises(FedctlError) as error:  # this server has no pod to run a command in
        for _ in cluster.exec("p", "c", ["true"]):
            pass
    assert "proxy" not in str(error.value).lower()


def test_the_proxy_of_the_kubeconfig_counts_first(
    apiserver: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "env:1")
    path = Path(os.environ["KUBECONFIG"])
    tree = yaml.safe_load(path.read_text())
    tree["clusters"][0]["cluster"]["proxy-url"] = "http://me:secret@config:2"
    (tmp_path / "config").write_text(json.dumps(tree))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    found = kubeconfig.read(None, None).configuration
    assert found.proxy == "http://me:secret@config:2"
    assert found.proxy_headers == {"proxy-authorization": "Basic bWU6c2VjcmV0"}


@pytest.mark.parametrize("server", ["https://api:99999", "https://api:x", "https://[::1"])
@pytest.mark.parametrize("login", ["", "me:hunter2@"])
def test_a_server_that_is_no_address(server: str, login: str) -> None:
    given = server.replace("//", f"//{login}")
    with pytest.raises(UserError) as error:
        proxy.of(given, PROXY)
    end = "is not an address; write https://HOST:PORT"
    assert str(error.value) == f"server: {shown(given)!r} {end}"


def shown(url: str) -> str:
    """Without its login."""
    return url.rpartition("@")[2]
