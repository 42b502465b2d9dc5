"""The proxy to an API server, as kubectl finds it in the environment. Opens no connection.

The rules are Go's (golang.org/x/net/http/httpproxy), which differ from those of urllib, requests
and websocket-client: an address without a scheme is HTTP's, no request to this machine goes through
a proxy, and NO_PROXY has networks, and ports.
"""

import ipaddress
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from fedctl.errors import UserError

PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
NEVER = "proxy.invalid"  # a host that no server has: the official client bypasses for no other


def configure(configuration: Any, given: str | None) -> None:
    """Set the official client's proxy: `given` by the kubeconfig, or else by the environment."""
    proxy = normal(given, "proxy-url") if given else of(configuration.host, os.environ)
    configuration.proxy = proxy
    if proxy is None:
        # websocket-client would look into the environment itself, by rules of its own; the official
        # client hands it these only if there are headers.
        configuration.no_proxy, configuration.proxy_headers = "*", {"user-agent": "fedctl"}
        return
    configuration.no_proxy = NEVER
    address = urlsplit(proxy)
    if address.username:
        from urllib3.util import make_headers

        login = f"{unquote(address.username)}:{unquote(address.password or '')}"
        configuration.proxy_headers = make_headers(proxy_basic_auth=login)


def of(server: str, environment: Mapping[str, str]) -> str | None:
    """Return the URL of the proxy to a server's URL; None if there is none."""
    try:
        address = urlsplit(server)
        port = address.port or PORTS.get(address.scheme, 443)
    except ValueError:
        raise UserError(
            f"server: {_without_login(server)!r} is not an address; write https://HOST:PORT"
        ) from None
    name = "HTTPS_PROXY" if address.scheme == "https" else "HTTP_PROXY"
    found = environment.get(name) or environment.get(name.lower())
    if not found or not address.hostname:
        return None
    rules = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    return None if _bypassed(address.hostname, port, rules) else normal(found, name)


def normal(proxy: str, name: str) -> str:
    """Return the proxy's URL with a scheme and a port; `name`: where it was written."""
    url = proxy if "://" in proxy else f"http://{proxy}"
    try:
        address = urlsplit(url)
        port = address.port or PORTS[address.scheme]
        if not address.hostname:
            raise ValueError
    except (ValueError, KeyError):
        raise UserError(
            f"{name}: {_without_login(proxy)!r} is not the address of a proxy; write "
            "http://HOST:PORT"
        ) from None
    host = f"[{address.hostname}]" if ":" in address.hostname else address.hostname
    login = f"{address.netloc.rpartition('@')[0]}@" if "@" in address.netloc else ""
    return f"{address.scheme}://{login}{host}:{port}"


def _without_login(url: str) -> str:
    """Return what may be shown of a URL that cannot be read, so that its login may be anywhere."""
    return url.rpartition("@")[2]


def _bypassed(host: str, port: int, rules: str) -> bool:
    """Return whether a connection to the host goes directly."""
    host = host.rstrip(".").lower()
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        ip = None
    if host == "localhost" or (ip is not None and ip.is_loopback):
        return True
    return any(_matches(rule.strip().lower(), host, ip, port) for rule in rules.split(","))


def _matches(rule: str, host: str, ip: Any, port: int) -> bool:
    if rule in ("", "*"):
        return rule == "*"
    try:
        network = ipaddress.ip_network(rule, strict=False)
        return ip is not None and ip.version == network.version and ip in network
    except ValueError:
        pass
    name, _, its_port = rule.rpartition(":")
    if name and its_port.isdecimal():
        rule = name.strip("[]")
        if int(its_port) != port:
            return False
    if ip is not None:
        return rule == host
    rule = rule.removeprefix("*")
    return host.endswith(rule) if rule.startswith(".") else f".{host}".endswith(f".{rule}")
