"""Whom a client trusts."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from api.client import Client
from api.schemas.vitals import Health
from api.trust import context_for, place_of, shown_by
from appliance.config_web import Web
from appliance.web import tls
from proxy.errors import CertificateRefused, ConfigurationError, ServerAway


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> tls.Identity:
    return tls.identity(Web(names=("localhost",)), tmp_path_factory.mktemp("web"))


@pytest.fixture
def url(identity: tls.Identity) -> Iterator[str]:
    """A server that shows it, and hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))
    context = identity.context()

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with suppress(OSError), connection, context.wrap_socket(connection, server_side=True) as tls_socket:
                    tls_socket.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"https://localhost:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(30)
    assert not thread.is_alive()


def test_the_authority_that_a_server_shows_is_the_one_that_signed_its_certificate(
    url: str, identity: tls.Identity
) -> None:
    shown = shown_by(url)
    assert shown.fingerprint == tls.authority_fingerprint(identity)
    assert identity.authority is not None
    assert shown.pem.split() == identity.authority.read_text().split()
    host, port = place_of(url)
    with (
        socket.create_connection((host, port)) as plain,
        context_for(shown.pem).wrap_socket(plain, server_hostname=host) as trusted,
    ):
        assert trusted.version() in ("TLSv1.2", "TLSv1.3")


def test_another_authority_is_not_trusted(url: str, tmp_path: Path) -> None:
    other = tls.identity(Web(names=("localhost",)), tmp_path / "other")
    assert other.authority is not None
    host, port = place_of(url)
    with socket.create_connection((host, port)) as plain, pytest.raises(ssl.SSLCertVerificationError):
        context_for(other.authority.read_text()).wrap_socket(plain, server_hostname=host)
    with Client(url, authority=other.authority.read_text()) as client, pytest.raises(ServerAway) as caught:
        client.get(Health, "/health/live")
    assert "not trusted" in str(caught.value)
    assert "ca.pem" in caught.value.hint


def test_another_name_than_the_asked_one_is_not_trusted(url: str) -> None:
    pem = shown_by(url).pem
    with (
        socket.create_connection(place_of(url)) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        context_for(pem).wrap_socket(plain, server_hostname="elsewhere.example")


@pytest.mark.parametrize("url", ["http://x", "https://", "https://user:pw@x", "https://x:99999", "x:443", ""])
def test_an_address_is_https_with_a_name_and_nothing_secret(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        place_of(url)
    assert "pw" not in str(caught.value)


def test_what_is_kept_must_be_a_certificate() -> None:
    with pytest.raises(CertificateRefused):
        context_for("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def test_nobody_there_is_away() -> None:
    with pytest.raises(ServerAway):
        shown_by("https://127.0.0.1:1", timeout=5)
