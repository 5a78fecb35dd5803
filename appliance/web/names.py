"""Under which names and addresses browsers may come to this machine."""

import json
import socket
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from appliance.config_web import Web
from proxy import command
from proxy.errors import ToolFailed

LOCAL = ("localhost", "127.0.0.1", "::1")

_TIMEOUT = 5.0
"""Seconds for ``ip``, which asks the kernel alone."""


def names_of(web: Web) -> Sequence[str]:
    """Host name, what the configuration says, this machine's addresses: each once, the most telling first."""
    found = [name.lower() for name in web.names]
    found.append(host_of(web.url))
    host, _ = web.listen
    found += [own_name(), *([host.lower()] if host and host not in {"0.0.0.0", "::"} else own_addresses()), *LOCAL]  # noqa: S104  # compared with, not listened on
    return tuple(dict.fromkeys(_normal(name) for name in found if name))


def address_of(web: Web, port: int | None = None) -> str:
    """Where people find the console, as a URL. ``port``: that was taken, where the configuration leaves it open."""
    if web.url:
        return web.url
    host, configured = web.listen
    if web.names:
        name = web.names[0]
    elif host and host not in {"0.0.0.0", "::"}:  # noqa: S104  # compared with, not listened on
        name = host
    else:
        name = own_name()
    shown = f"[{name}]" if ":" in name else name
    return f"https://{shown}:{port or configured}"


def host_of(url: str | None) -> str:
    """The host in a URL; empty without one."""
    return (urlsplit(url).hostname or "").lower() if url else ""


def own_name() -> str:
    """The host name. No DNS is asked: it may be silent for a minute, and say what is wrong here."""
    return socket.gethostname().lower()


def own_addresses() -> Sequence[str]:
    """Of all network interfaces but their link-local ones, as the kernel has them now."""
    try:
        listed = json.loads(command.run(["ip", "-json", "address", "show", "up"], timeout=_TIMEOUT).text)
    except (ToolFailed, ValueError):
        return tuple(_routed())
    found = [ip_address(each["local"]) for link in listed for each in link.get("addr_info", ()) if "local" in each]
    return tuple(str(address) for address in found if not (address.is_link_local or address.is_loopback))


def _routed() -> Iterator[str]:
    """The addresses from which this machine would speak to the world; nothing is sent."""
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as trial:
                trial.connect((far, 9))
                yield str(trial.getsockname()[0])
        except OSError:
            continue


def _normal(name: str) -> str:
    try:
        return str(ip_address(name))
    except ValueError:
        return name
