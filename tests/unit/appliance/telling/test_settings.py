from pathlib import Path

import pytest

from appliance.config import parse
from appliance.telling.kinds import EventKind
from proxy.errors import ConfigurationError

GOOD = """
[[notify]]
name = "operators"
url_file = "/etc/lanfree/operators.url"
quiet_from = "22:00"
quiet_to = 06:00:00
zone = "Europe/Berlin"
attach_report = true

[[notify]]
name = "tickets"
kind = "webhook"
url = "https://tickets.example/hook"
secret_file = "/etc/lanfree/tickets.secret"
events = ["failed", "repository"]
jobs = ["prod-*"]

[metrics]
address = "[::1]:9727"

[log]
level = "debug"
format = "text"
"""


def test_the_sections_are_read() -> None:
    settings = parse(GOOD, Path("lanfree.toml"))
    people, tickets = settings.notify
    assert EventKind.DONE not in people.events
    assert EventKind.REPOSITORY in people.events
    assert tickets.events == (EventKind.FAILED, EventKind.REPOSITORY)
    assert settings.metrics.listen == ("::1", 9727)
    assert settings.log.format == "text"


def test_without_any_of_it_nobody_is_told_and_nothing_listens() -> None:
    settings = parse("", Path("lanfree.toml"))
    assert settings.notify == ()
    assert settings.metrics.listen is None
    assert settings.reports.keep == 400


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[[notify]]\nname = "x"', "either a url or a url_file"),
        ('[[notify]]\nname = "x"\nurl = "mailto://u:p@h"', "write them into a url_file"),
        ('[[notify]]\nname = "x"\nkind = "webhook"\nurl = "https://u:p@h/"', "write them into a url_file"),
        ('[[notify]]\nname = "x"\nkind = "syslog"\nurl = "tcp://token@h"', "holds a user or a password"),
        ('[[notify]]\nname = "x"\nkind = "webhook"\nurl = "http://tickets.example/"', "x: a webhook's url is https"),
        ('[[notify]]\nname = "x"\nkind = "webhook"\nurl = "ftp://127.0.0.1/"', "x: a webhook's url is https"),
        ('[[notify]]\nname = "x"\nkind = "webhook"\nurl = "https:///"', "x: a webhook's url is https"),
        ('[[notify]]\nname = "x"\nkind = "webhook"\nurl = "https://[broken/"', "malformed"),
        ('[[notify]]\nname = "x"\nkind = "syslog"\nurl = "http://siem.example"', "udp://host"),
        ('[[notify]]\nname = "x"\nkind = "syslog"\nurl = "unix://"', "udp://host"),
        ('[[notify]]\nname = "X y"\nurl_file = "/f"', "not of the form"),
        ('[[notify]]\nname = "x"\nurl_file = "/f"\nquiet_from = "22:00"', "need quiet_from and quiet_to"),
        ('[[notify]]\nname = "x"\nurl_file = "/f"\nzone = "Mars/Olympus"', "unknown time zone"),
        ('[[notify]]\nname = "x"\nurl_file = "/f"\nsecret_file = "/s"', "only a webhook"),
        ('[[notify]]\nname = "x"\nurl_file = "/f"\nca_bundle = "/s"', "no ca_bundle"),
        ('[[notify]]\nname = "x"\nurl_file = "/f"\nevents = ["sometimes"]', "sometimes is none of: done"),
        ('[[notify]]\nname = "x"\nurl_file = "/f"\n[[notify]]\nname = "x"\nurl_file = "/g"', "same name"),
        ('[metrics]\naddress = "9727"', "host:port"),
        ('[metrics]\naddress = "host:99999"', "host:port"),
        ('[log]\nlevel = "loud"', "loud is none of: debug"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(text: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        parse(text, Path("lanfree.toml"))


@pytest.mark.parametrize(
    "way",
    [
        'kind = "webhook"\nurl = "http://127.0.0.1:8080/x"',
        'kind = "webhook"\nurl = "http://[::1]:1/x"',
        'kind = "webhook"\nurl = "https://tickets.example:8443/hook"',
        'kind = "syslog"\nurl = "tls://siem.example"',
        'kind = "syslog"\nurl = "unix:///dev/log"',
        'kind = "webhook"\nurl_file = "/etc/lanfree/hook"',
    ],
)
def test_private_ways_are_taken(way: str) -> None:
    assert len(parse(f'[[notify]]\nname = "x"\n{way}', Path("lanfree.toml")).notify) == 1
