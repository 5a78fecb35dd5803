"""The sections ``[[notify]]``, ``[metrics]``, ``[log]`` and ``[reports]`` of the configuration file."""

import re
from datetime import time
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from appliance.config_section import Section, without_user
from appliance.telling.kinds import EventKind
from catalog.jobs.policy import Zone

_PORTS = re.compile(r"^(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\s\[\]]*):(?P<port>[0-9]{1,5})$")


LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
"""Hosts that are this machine: what is sent there needs no encryption."""

SYSLOG_PORTS = {"udp": 514, "tcp": 601, "tls": 6514}
"""Scheme of an address of syslog -> its usual port."""


class Notify(Section):
    """A way to people (or to their programs).

    ``kind``: ``apprise`` for mail and chat: ``url_file`` (0600) then holds one address of Apprise a line
    (``mailtos://user:password@mail.example?to=ops@example``); ``webhook``: a JSON document is posted to ``url`` (https; http to
    this machine only), signed with the secret in ``secret_file``; ``syslog``: ``url`` is ``udp://host:514``,
    ``tcp://host:601``, ``tls://host:6514`` or ``unix:///dev/log``. An address that holds a secret belongs into ``url_file``.

    ``events``: what is told this way; all but runs that went well, if not said. ``jobs``: patterns of names of jobs
    (``prod-*``); all, if none is named. ``quiet_from``, ``quiet_to``: times of day in ``zone`` between which messages wait and
    are then told as one, but for ``urgent`` events. ``attach_report``: the HTML report goes with a mail about a run; it names
    every machine, so think of who reads the mailbox. ``timeout``: seconds that one attempt may take.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
    kind: Literal["apprise", "webhook", "syslog"] = "apprise"
    url: str | None = None
    url_file: Path | None = None
    secret_file: Path | None = None
    ca_bundle: Path | None = None
    events: tuple[EventKind, ...] = tuple(kind for kind in EventKind if kind is not EventKind.DONE)
    jobs: tuple[str, ...] = ()
    quiet_from: time | None = None
    quiet_to: time | None = None
    zone: Zone = "UTC"
    urgent: tuple[EventKind, ...] = (EventKind.REPOSITORY,)
    attach_report: bool = False
    timeout: Annotated[float, Field(gt=0, le=300)] = 30.0

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        if (self.url is None) == (self.url_file is None):
            raise ValueError("a way to notify has either a url or a url_file")
        if self.kind == "apprise" and self.url_file is None:
            raise ValueError("addresses of apprise hold passwords: write them into a url_file")
        if self.secret_file is not None and self.kind != "webhook":
            raise ValueError("only a webhook is signed with a secret_file")
        if self.ca_bundle is not None and self.kind == "apprise":
            raise ValueError("apprise takes no ca_bundle: add the authority to those of the system")
        return self

    @field_validator("url")
    @classmethod
    def _without_password(cls, value: str | None) -> str | None:
        return without_user(value, "write them into a url_file")

    @model_validator(mode="after")
    def _quiet_hours_have_both_ends(self) -> Self:
        if (self.quiet_from is None) != (self.quiet_to is None):
            raise ValueError("quiet hours need quiet_from and quiet_to")
        return self


def check_address(way: Notify) -> None:
    """Raises ``ValueError`` for a ``url`` that messages would leave by in the clear, or not at all. What a ``url_file`` says is
    known only when something is told."""
    if way.url is None or way.kind == "apprise":
        return
    try:
        parts = urlsplit(way.url)
        scheme, host = parts.scheme, parts.hostname
        parts.port  # noqa: B018  # read for what it raises
    except ValueError:
        raise ValueError(f"[[notify]] {way.name}: the url is malformed") from None
    if way.kind == "webhook":
        if not host or not (scheme == "https" or (scheme == "http" and host in LOCAL)):
            raise ValueError(f"[[notify]] {way.name}: a webhook's url is https; http to this machine only")
    elif not (parts.path if scheme == "unix" else scheme in SYSLOG_PORTS and host):
        raise ValueError(f"[[notify]] {way.name}: the url is udp://host, tcp://host, tls://host or unix:///dev/log")


class Metrics(Section):
    """Prometheus metrics of ``lanfree serve``. Off unless ``address`` is said (``127.0.0.1:9727``; ``:9727``: everywhere):
    whoever reaches it reads the machines' names without a password. ``machines``: metrics of single machines for at most so
    many; beyond it there are sums only, because each is a series that Prometheus keeps. ``min_age``: seconds for which an
    answer is given again, so that impatient scrapers cost nothing."""

    address: str | None = None
    machines: Annotated[int, Field(ge=0, le=200_000)] = 20_000
    min_age: Annotated[float, Field(ge=0, le=3600)] = 10.0

    @field_validator("address")
    @classmethod
    def _listenable(cls, value: str | None) -> str | None:
        if value is not None:
            found = _PORTS.match(value)
            if found is None or not 0 <= int(found["port"]) <= 65535:
                raise ValueError("an address is host:port, with IPv6 [::1]:port")
        return value

    @property
    def listen(self) -> tuple[str, int] | None:
        """Host (empty: every address) and port."""
        found = _PORTS.match(self.address) if self.address else None
        return (found["host"].strip("[]"), int(found["port"])) if found else None


class Log(Section):
    """What ``lanfree serve`` writes to stderr, which systemd keeps: ``json``, one object a line, or ``text`` for people.
    ``debug`` shows each step and is loud."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"


class Reports(Section):
    """HTML reports of job runs in ``reports/`` of the state directory. ``keep``: so many of the newest; one takes about 1 KiB
    a machine. 0: none are written."""

    keep: Annotated[int, Field(ge=0, le=100_000)] = 400
