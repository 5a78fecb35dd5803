"""The section ``[web]`` of the configuration file: the API and the console."""

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from appliance.config_section import Section, without_user

_ADDRESS = re.compile(r"^(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\s\[\]]*):(?P<port>[0-9]{1,5})$")
_NAME = re.compile(r"^[A-Za-z0-9.:_-]{1,253}$")


RoleName = Literal["administrator", "operator", "restore-operator", "auditor"]


class Oidc(Section):
    """Signing in with OpenID Connect: ``issuer`` (https), the client that is registered there, and what its tokens say.

    ``client_secret_file``: 0600, first line. ``name_claim``: what people are called here. ``groups_claim``: the list that
    ``roles`` speaks of: group -> role (``administrator``, ``operator``, ``restore-operator``, ``auditor``); who is in none of
    these groups is let in nowhere. ``machines``: group -> patterns of machines that its members reach (``["*"]``: all);
    where any are said, who is in none of these groups is not let in. Everybody reaches all machines where none are said.
    ``allowed_domains``: of e-mail addresses that are let in; all, if not said. ``ca_bundle``: of an issuer whose
    certificate is no public one's. ``label``: of the button."""

    issuer: str
    client_id: str
    client_secret_file: Path
    scopes: tuple[str, ...] = ("openid", "profile", "email", "groups")
    name_claim: str = "preferred_username"
    groups_claim: str = "groups"
    roles: Annotated[dict[str, RoleName], Field(min_length=1)]
    machines: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    allowed_domains: tuple[str, ...] = ()
    ca_bundle: Path | None = None
    label: str = "Single sign-on"

    @field_validator("issuer")
    @classmethod
    def _private(cls, value: str) -> str:
        parts = urlsplit(value)
        local = parts.scheme == "http" and parts.hostname in {"localhost", "127.0.0.1", "::1"}
        if not parts.hostname or not (parts.scheme == "https" or local):
            raise ValueError("an issuer is an https address; http on this machine only")
        without_user(value, "name a client_secret_file")
        return value.rstrip("/")


class Web(Section):
    """API and console, over TLS always. ``lanfree serve`` starts them beside itself unless ``enabled`` is false.

    ``address``: ``:9728`` is every address of the machine, over IPv4 and IPv6: a console is looked at from elsewhere, nobody
    gets in without the one-time code that only this machine's root can read, and what is sent is encrypted from the first
    byte. ``127.0.0.1:9728`` where a reverse proxy or an SSH tunnel stands before it. Port 0: a free one.

    ``names``: what browsers call this machine beside its host name and its addresses; for the certificate, and requests
    under any other name are refused. ``url``: where a reverse proxy shows it (``https://backup.example``); its name is one of
    them. ``trusted_proxies``: addresses of reverse proxies whose X-Forwarded-For counts.

    ``certificate_file`` (with the chain) and ``key_file`` (0600) instead of those that Lanfree's own authority signs; both are
    read again when they change. ``connections``: at once; a browser has two or three. ``idle_minutes``, ``session_hours``: a
    person signs in again after so long without a click, and after so long in any case (a working day).

    ``four_eyes``: deleting restore points and shortening retention wait for a second person. ``restore_directories``: where
    on this machine files may be restored to, in or below these; none if not said. ``hypervisor_networks``: where hypervisors
    may be that are added in the console (``10.0.0.0/8``); anywhere but in this machine and its link-local networks, if not
    said. ``hypervisor_uris``: libvirt addresses that may be added although they are none of a network: patterns
    (``qemu+unix:///system?socket=/run/libvirt/*``).
    """

    enabled: bool = True
    address: str = ":9728"
    names: tuple[str, ...] = ()
    url: str | None = None
    trusted_proxies: tuple[str, ...] = ()
    certificate_file: Path | None = None
    key_file: Path | None = None
    connections: Annotated[int, Field(ge=8, le=65536)] = 512
    idle_minutes: Annotated[float, Field(ge=1, le=10080)] = 60.0
    session_hours: Annotated[float, Field(gt=0, le=8760)] = 12.0
    four_eyes: bool = False
    restore_directories: tuple[Path, ...] = ()
    hypervisor_networks: tuple[str, ...] = ()
    hypervisor_uris: tuple[str, ...] = ()
    oidc: Oidc | None = None

    @field_validator("address")
    @classmethod
    def _listenable(cls, value: str) -> str:
        found = _ADDRESS.match(value)
        if found is None or not 0 <= int(found["port"]) <= 65535:
            raise ValueError("an address is host:port, with IPv6 [::1]:port")
        return value

    @field_validator("names")
    @classmethod
    def _are_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not _NAME.match(name):
                raise ValueError(f"{name!r} is neither a host name nor an address")
        return value

    @field_validator("url")
    @classmethod
    def _is_https(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme != "https" or not parts.hostname or parts.path not in {"", "/"} or parts.query:
            raise ValueError("the url is https://NAME or https://NAME:PORT, without a path")
        without_user(value, "people sign in at the console itself")
        return value.rstrip("/")

    @field_validator("hypervisor_networks", "trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ip_network(network)
        return value

    @field_validator("restore_directories")
    @classmethod
    def _are_absolute(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        for directory in value:
            if not directory.is_absolute() or ".." in directory.parts:
                raise ValueError(f"{directory} is no absolute path")
        return value

    @model_validator(mode="after")
    def _a_certificate_has_its_key(self) -> Self:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file are named together, or neither")
        return self

    @property
    def listen(self) -> tuple[str, int]:
        """Host (empty: every address) and port."""
        host, _, port = self.address.rpartition(":")
        return host.strip("[]"), int(port)
