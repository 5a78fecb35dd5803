"""Where hypervisors may be that a person adds over the API: nobody makes the appliance talk to itself, to the cloud's metadata
service or to whatever else is none of theirs, and no libvirt address runs a command or names a file.

::

    qemu+ssh://backup@kvm1/system              three transports, a plain name or address, system or session
    qemu+ssh://kvm1/system?command=/bin/sh     refused: parameters of libvirt run programs and read files
    test:///default, qemu:///system            refused: they lead nowhere but here

Whoever can write the configuration file is not bound by this: the file is for root. ``[web] hypervisor_networks`` and
``hypervisor_uris`` let more through.

A name is looked up here, and again by whoever connects. Who answers there then proves itself before anything is said to it:
to SSH by its host key, to TLS by its certificate.
"""

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import parse_qsl, urlsplit

from api.refusals import AddressRefused
from appliance.config_web import Web

Address = IPv4Address | IPv6Address

PORTS = {"qemu": 16514, "qemu+tls": 16514, "qemu+ssh": 22}
"""Transports that may be used, and where they are answered unless the address says otherwise. ``qemu`` alone is TLS."""

_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])"

# Of the whole address and of ASCII alone: there is nothing in it that two programs could read in two ways.
_URI = re.compile(
    rf"(?P<scheme>qemu(?:\+ssh|\+tls)?)://(?:(?P<user>[A-Za-z_][A-Za-z0-9_.-]{{0,31}})@)?(?P<host>{_HOST})"
    r"(?::(?P<port>[0-9]{1,5}))?/(?P<path>system|session)(?:\?no_tty=[01])?",
    re.ASCII,
)

# Of clouds: what answers there gives keys away. Most of them are link-local, these are not.
_METADATA = frozenset(map(ip_address, ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254")))

# IPv6 addresses that lead to an IPv4 address, which is their last 32 bits.
_TRANSLATED = IPv6Network("64:ff9b::/96")

CONNECT_SECONDS = 5.0
"""A host of the same site takes a connection in milliseconds; three lost SYNs take seven."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``addresses``: that the name leads to, all of which may be asked."""

    host: str
    port: int
    addresses: tuple[Address, ...]


def endpoint_of_uri(uri: str, web: Web) -> Endpoint | None:
    """Where a libvirt address leads; ``None`` for one that the configuration lets through as it is. Raises
    ``AddressRefused``."""
    if any(_fits(uri, pattern) for pattern in web.hypervisor_uris):
        return None
    found = _URI.fullmatch(uri)
    if found is None:
        raise AddressRefused("it is not of the form qemu+ssh://USER@HOST/system, or qemu+tls://HOST/system")
    port = int(found["port"] or PORTS[found["scheme"]])
    return endpoint(found["host"].strip("[]"), port, web)


def endpoint(host: str, port: int, web: Web) -> Endpoint:
    """A server by name or address. Raises ``AddressRefused``."""
    if re.fullmatch(_HOST, host) is None and re.fullmatch(_HOST, f"[{host}]") is None:
        raise AddressRefused("it is neither a plain host name nor an address", hint="for example vcenter.example")
    if not 0 < port < 65536:
        raise AddressRefused("there is no such port")
    addresses = _looked_up(host, port)
    if not addresses:
        raise AddressRefused("nobody knows this host name", hint="check how it is written, and this machine's DNS")
    for address in addresses:
        why = refusal(address, web.hypervisor_networks)
        if why:
            raise AddressRefused(
                why, hint="name the network in hypervisor_networks under [web] if hypervisors are there"
            )
    return Endpoint(host, port, addresses)


def refusal(address: Address, networks: Sequence[str] = ()) -> str:
    """Why nobody may be sent there; empty where they may. ``networks``: the only ones that count, if any is named."""
    plain = _plain(address)
    if networks:
        allowed = [ip_network(network) for network in networks]
        inside = any(plain.version == network.version and plain in network for network in allowed)
        return "" if inside else "it is in none of the networks where hypervisors may be"
    if plain.is_loopback or plain.is_unspecified or _is_own(plain):
        return "it leads to this machine itself"
    if plain.is_link_local or plain in _METADATA:
        return "it is a link-local address, or one of a cloud's own services"
    if plain.is_multicast or plain.is_reserved:
        return "it is no address of a single host"
    return ""


def takes_connections(where: Endpoint) -> bool:
    """Whether anybody accepts a connection there. Nothing is sent, and nothing of what is said is kept."""
    for address in where.addresses:
        try:
            with socket.create_connection((str(address), where.port), CONNECT_SECONDS):
                return True
        except OSError:
            continue
    return False


def _looked_up(host: str, port: int) -> tuple[Address, ...]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))


def _plain(address: Address) -> Address:
    """Without an IPv6 address around an IPv4 one."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is not None:
            return inner
        if address in _TRANSLATED:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_own(address: Address) -> bool:
    """Whether this machine has it: the kernel binds to nobody else's."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


def _fits(uri: str, pattern: str) -> bool:
    """Whether an address is what the configuration lets through: part by part, so that a star in one part covers no other,
    and no parameter comes along that the pattern does not name."""
    if not uri.isascii() or not uri.isprintable() or "%" in uri or "#" in uri or ".." in uri:
        return False
    try:
        said, meant = urlsplit(uri), urlsplit(pattern)
        given, wanted = parse_qsl(said.query, strict_parsing=bool(said.query)), parse_qsl(meant.query)
    except ValueError:
        return False
    parts = zip((said.scheme, said.netloc, said.path), (meant.scheme, meant.netloc, meant.path), strict=True)
    if [name for name, _ in given] != [name for name, _ in wanted]:
        return False
    values = zip((value for _, value in given), (value for _, value in wanted), strict=True)
    return all(fnmatchcase(have, want) for have, want in (*parts, *values))
