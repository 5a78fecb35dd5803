"""Each way against a real server of its kind."""

import json
import logging
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from appliance.telling import events
from appliance.telling.kinds import EventKind
from appliance.telling.settings import Notify
from appliance.telling.ways import Message, made
from appliance.telling.ways.syslog import LONGEST, formatted
from appliance.telling.ways.way import ToldInPart
from appliance.telling.ways.webhook import signature
from proxy.errors import ConfigurationError, NotTold
from tests.unit.appliance.telling.receivers import Hook, Listener, Mailbox, Secured, everything

pytestmark = pytest.mark.slow

AT = datetime(2026, 11, 23, 3, 12, 44, tzinfo=UTC)
EVENT = replace(
    events.trial(AT),
    kind=EventKind.FAILED,
    title="Lanfree: job nächtlich failed",
    job="nächtlich",
    run="j1",
    about="job x",
)
MESSAGE = Message("id-1", EVENT)


@pytest.fixture
def private(tmp_path: Path) -> Any:
    def write(name: str, text: str, mode: int = 0o600) -> Path:
        path = tmp_path / name
        path.write_text(text)
        path.chmod(mode)
        return path

    return write


def webhook(url: str, **changes: Any) -> Notify:
    return Notify(name="tickets", kind="webhook", url=url, timeout=60, **changes)


def syslog(url: str, **changes: Any) -> Notify:
    return Notify(name="siem", kind="syslog", url=url, timeout=60, **changes)


# --- mail and chat


def test_a_mail_arrives_with_title_text_and_report(mailbox: Mailbox, private: Any) -> None:
    report = private("report.html", "<p>all of it</p>")
    way = made(Notify(name="ops", url_file=private("ops.url", f"# operators\n\n{mailbox.address}\n")))
    way.deliver(replace(MESSAGE, attach=(report,)))
    (mail,) = mailbox.mails
    assert mail["Subject"] == "Lanfree: job nächtlich failed"
    assert mail["To"] == "ops@example.org"
    text, attached = mail.iter_parts()
    assert text.get_content().strip() == EVENT.text
    assert (attached.get_filename(), attached.get_content().strip()) == ("report.html", "<p>all of it</p>")


def test_a_title_cannot_add_a_header_to_a_mail(mailbox: Mailbox, private: Any) -> None:
    way = made(Notify(name="ops", url_file=private("ops.url", mailbox.address)))
    hostile = events.proxy_gone("p", "host\r\nBcc: everybody@example.org\r\n\r\nhello", AT)
    way.deliver(replace(MESSAGE, event=hostile))
    (mail,) = mailbox.mails
    assert mail["Bcc"] is None
    assert mail["Subject"] == "Lanfree: proxy on host Bcc: everybody@example.org hello gives no sign of life"


def test_a_strangers_name_is_text_in_a_mail_that_is_html(mailbox: Mailbox, private: Any) -> None:
    way = made(Notify(name="ops", url_file=private("ops.url", f"{mailbox.address}&format=html")))
    way.deliver(replace(MESSAGE, event=replace(EVENT, lines=("<img src=x onerror=alert(1)> & <b>more</b>",))))
    (mail,) = mailbox.mails
    (page,) = [part.get_content() for part in mail.walk() if part.get_content_type() == "text/html"]
    assert "<img" not in page
    assert "&lt;img" in page


def test_who_took_it_does_not_get_it_again_because_another_was_away(mailbox: Mailbox, private: Any) -> None:
    away = "json://user:geheim99@127.0.0.1:1/token-of-a-service"
    file = private("ops.url", f"{mailbox.address}\n{away}\n")
    way = made(Notify(name="ops", url_file=file, timeout=60))
    with pytest.raises(ToldInPart) as refused:
        way.deliver(MESSAGE)
    assert "geheim99" not in refused.value.message
    assert "token-of-a-service" not in refused.value.message
    with pytest.raises(ToldInPart):
        way.deliver(replace(MESSAGE, told=refused.value.told))
    assert len(mailbox.mails) == 1


def test_nothing_of_an_address_gets_into_the_log(private: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    way = made(
        Notify(name="ops", url_file=private("ops.url", "json://user:geheim99@127.0.0.1:1/abc-token"), timeout=60)
    )
    with pytest.raises(NotTold):
        way.deliver(MESSAGE)
    assert "geheim99" not in caplog.text
    assert "abc-token" not in caplog.text


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        ("mailto://x", 0o644, "others than its owner"),
        ("# nothing\n", 0o600, "says nothing"),
        ("gopher-secret://x", 0o600, "address 1: Apprise does not understand"),
    ],
)
def test_a_file_of_addresses_is_private_and_understood(private: Any, text: str, mode: int, why: str) -> None:
    way = made(Notify(name="ops", url_file=private("ops.url", text, mode)))
    with pytest.raises(ConfigurationError, match=why) as refused:
        way.deliver(MESSAGE)
    assert "gopher-secret" not in refused.value.message


# --- webhooks


def test_a_webhook_gets_a_signed_document(hook: Hook, private: Any) -> None:
    made(webhook(hook.url, secret_file=private("secret", "s3cret\n"))).deliver(MESSAGE)
    ((path, headers, body),) = hook.posts
    document = json.loads(body)
    assert path == "/hook?team=ops"
    assert (document["format"], document["version"]) == ("lanfree-event", 1)
    assert (document["kind"], document["job"], document["run"]) == ("failed", "nächtlich", "j1")
    stamp = int(headers["X-Lanfree-Timestamp"])
    assert abs(stamp - time.time()) < 60
    assert headers["X-Lanfree-Signature"] == signature("s3cret", stamp, body)
    assert headers["X-Lanfree-Signature"] != signature("other", stamp, body)
    assert headers["X-Lanfree-Delivery"] == document["id"] == "id-1"


def test_the_signature_is_what_other_programs_compute() -> None:
    # printf '1795392000.{"a":1}' | openssl dgst -sha256 -hmac key
    expected = "sha256=5eb443aa77b2efd047fe0d7579c36bf8e46aa1ddf7ac48a01e0757391a1017df"
    assert signature("key", 1795392000, b'{"a":1}') == expected


def test_without_a_secret_a_webhook_is_not_signed(hook: Hook) -> None:
    made(webhook(hook.url)).deliver(MESSAGE)
    assert "X-Lanfree-Signature" not in hook.posts[0][1]


@pytest.mark.parametrize("status", [301, 400, 404, 429, 500])
def test_any_other_answer_than_success_is_not_told(hook: Hook, status: int) -> None:
    hook.answer = status
    with pytest.raises(NotTold, match=f"it answered {status}"):
        made(webhook(hook.url)).deliver(MESSAGE)


def test_a_redirection_is_not_followed(hook: Hook) -> None:
    with Hook() as elsewhere:
        hook.answer, hook.headers = 307, {"Location": elsewhere.url}
        with pytest.raises(NotTold):
            made(webhook(hook.url)).deliver(MESSAGE)
        assert elsewhere.posts == []


def test_an_https_receiver_must_show_a_certificate_that_is_trusted(secure: Secured) -> None:
    with Hook(secure=secure) as receiver:
        with pytest.raises(NotTold, match=r"(?i)certificate"):
            made(webhook(receiver.url)).deliver(MESSAGE)
        assert receiver.posts == []
        made(webhook(receiver.url, ca_bundle=secure.certificate)).deliver(MESSAGE)
        assert len(receiver.posts) == 1
        with pytest.raises(NotTold, match=r"(?i)certificate|match|valid for"):
            made(webhook(receiver.url.replace("127.0.0.1", "localhost"), ca_bundle=secure.certificate)).deliver(MESSAGE)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/hook",
        "ftp://example.org/",
        "https://user:secret99@example.org/",
        "https:///nowhere",
        "https://example.org/a b",
        "https://[broken/secret99",
    ],
)
def test_an_address_that_is_unsafe_or_none_is_refused_without_quoting_it(url: str) -> None:
    # As a url_file says it: the configuration file does not get so far with some of them.
    way = webhook("https://example.org/").model_copy(update={"url": url})
    with pytest.raises(ConfigurationError) as refused:
        made(way).deliver(MESSAGE)
    assert "secret99" not in refused.value.message + refused.value.hint


def test_who_answers_a_byte_at_a_time_does_not_hold_us() -> None:
    def drip(connection: socket.socket) -> None:
        connection.recv(65536)
        while True:  # until nobody listens any more
            connection.sendall(b"H")
            time.sleep(0.05)

    with Listener(drip) as slow:
        began = time.monotonic()
        with pytest.raises(NotTold):
            made(webhook(f"http://127.0.0.1:{slow.port}/").model_copy(update={"timeout": 0.3})).deliver(MESSAGE)
        assert time.monotonic() - began < 30


# --- syslog

HEAD = (
    "<27>1 2026-11-23T03:12:44.000000Z proxy1 lanfree 4711 failed "
    '[lanfree@32473 about="job x" job="nächtlich" run="j1" delivery="id-1"] \ufeffLanfree: job nächtlich failed | '
)


def test_a_packet_is_as_rfc_5424_draws_it() -> None:
    packet = formatted(MESSAGE, hostname="proxy1", process=4711).decode()
    assert packet == HEAD + EVENT.text


def test_a_packet_escapes_what_structured_data_must_and_is_never_too_long() -> None:
    hostile = replace(EVENT, job='a"]\\ b', lines=("€" * 3000,), about="x\ny")
    packet = formatted(Message("i", hostile), hostname="söme host", process=1)
    assert rb'job="a\"\]\\ b"' in packet
    assert b'about="x y"' in packet
    assert b" smehost lanfree " in packet
    assert len(packet) <= LONGEST
    packet.decode()


@contextmanager
def datagrams(family: socket.AddressFamily, place: Any) -> Iterator[socket.socket]:
    with socket.socket(family, socket.SOCK_DGRAM) as receiver:
        receiver.bind(place)
        receiver.settimeout(60)
        yield receiver


def test_a_datagram_arrives_over_udp_and_over_a_unix_socket(tmp_path: Path) -> None:
    with datagrams(socket.AF_INET, ("127.0.0.1", 0)) as receiver:
        made(syslog(f"udp://127.0.0.1:{receiver.getsockname()[1]}")).deliver(MESSAGE)
        assert receiver.recv(65536).startswith(b"<27>1 2026-11-23T03:12:44.000000Z ")
    with datagrams(socket.AF_UNIX, str(tmp_path / "log")) as receiver:
        made(syslog(f"unix://{tmp_path}/log")).deliver(MESSAGE)
        assert receiver.recv(65536).endswith(EVENT.text.encode())


def test_a_stream_counts_its_octets_in_the_clear_and_over_tls(secure: Secured) -> None:
    got: list[bytes] = []

    def encrypted(connection: socket.socket) -> None:
        try:
            with secure.context().wrap_socket(connection, server_side=True) as tunnel:
                got.append(everything(tunnel))
        except ssl.SSLError:
            got.append(b"refused")

    with Listener(lambda connection: got.append(everything(connection))) as plain, Listener(encrypted) as tls:
        made(syslog(f"tcp://127.0.0.1:{plain.port}")).deliver(MESSAGE)
        made(syslog(f"tls://127.0.0.1:{tls.port}", ca_bundle=secure.certificate)).deliver(MESSAGE)
        with pytest.raises(NotTold, match=r"(?i)certificate"):
            made(syslog(f"tls://127.0.0.1:{tls.port}")).deliver(MESSAGE)
    for packet in got[:2]:
        length, _, rest = packet.partition(b" ")
        assert len(rest) == int(length)
    assert got[2] == b"refused"


@pytest.mark.parametrize("url", ["udp://", "http://host", "unix://", "tcp://host:port"])
def test_what_is_no_address_of_syslog_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        made(syslog(url)).deliver(MESSAGE)


# --- all of them


@pytest.mark.parametrize("kind", ["apprise", "webhook", "tcp", "unix"])
def test_a_receiver_that_is_away_is_worth_another_attempt(kind: str, private: Any, tmp_path: Path) -> None:
    sections = {
        "apprise": Notify(name="x", url_file=private("u", "mailto://127.0.0.1:1?from=a@b.example&to=c@d.example")),
        "webhook": webhook("http://127.0.0.1:1/"),
        "tcp": syslog("tcp://127.0.0.1:1"),
        "unix": syslog(f"unix://{tmp_path}/nobody"),
    }
    with pytest.raises(NotTold) as refused:
        made(sections[kind]).deliver(MESSAGE)
    assert "notify test" in refused.value.hint
