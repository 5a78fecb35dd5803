"""The process of API and console as its clients, its parent and its administrator see it."""

import hashlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from appliance.config_file import ConfigurationFile
from appliance.web import patient
from tests.integration.web.process.web_process import LONG, WebSite, until

pytestmark = pytest.mark.tools

OLD = "DEFAULT:@SECLEVEL=0"
"""With which OpenSSL still speaks TLS 1.1."""


def _ends(process: "subprocess.Popen[bytes]", within: float = 20.0) -> int:
    return process.wait(within)


def test_it_answers_over_tls_to_whoever_trusts_its_authority_and_says_where_the_code_is(web_site: WebSite) -> None:
    web_site.start("web")
    running = web_site.running()
    assert web_site.get(running["port"], "/api/v1/health/live").status == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        web_site.connected(running["port"], cafile=_other_authority())
    assert "lanfree web code" in web_site.said()
    code = web_site.lanfree("web", "code")
    assert code["address"] == running["url"]
    assert code["code"] not in web_site.said()
    shown = web_site.lanfree("web", "fingerprint")
    with web_site.connected(running["port"]) as connection:
        der = connection.getpeercert(binary_form=True)
        assert der is not None
        assert hashlib.sha256(der).hexdigest().upper() == shown["fingerprint"].replace(":", "")
        assert connection.version() in {"TLSv1.2", "TLSv1.3"}


def _other_authority() -> Path:
    return Path("/etc/ssl/certs/ca-certificates.crt")


def test_old_versions_of_tls_and_plain_http_get_nothing(web_site: WebSite) -> None:
    web_site.start("web")
    port = web_site.running()["port"]
    with pytest.warns(DeprecationWarning):
        # The same client comes in with the next version, so it is the server that refuses.
        web_site.connected(port, ciphers=OLD, maximum_version=ssl.TLSVersion.TLSv1_2).close()
        with pytest.raises(ssl.SSLError):
            web_site.connected(port, ciphers=OLD, maximum_version=ssl.TLSVersion.TLSv1_1)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as plain:
        plain.sendall(b"GET /api/v1/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert not plain.recv(4096).startswith(b"HTTP/1.1 200")


def test_a_name_that_is_none_of_ours_is_refused(web_site: WebSite) -> None:
    web_site.start("web")
    port = web_site.running()["port"]
    assert web_site.get(port, "/api/v1/health/live", Host="evil.example").status in {400, 421}


def test_silent_and_slow_clients_are_let_go_and_others_are_served_meanwhile(web_site: WebSite) -> None:
    web_site.start("web")
    port = web_site.running()["port"]
    silent, slow = web_site.connected(port), web_site.connected(port)
    begun = time.monotonic()
    slow.sendall(b"GET /api/v1/health/live HTTP/1.1\r\n")
    ended: dict[str, float] = {}
    while len(ended) < 2 and time.monotonic() - begun < patient.HEAD_SECONDS + 30:
        for name, one in (("silent", silent), ("slow", slow)):
            if name not in ended and _is_over(one, b"X-Slow: 1\r\n" if name == "slow" else b""):
                ended[name] = time.monotonic() - begun
        assert web_site.answers(port)
    assert set(ended) == {"silent", "slow"}
    assert all(seconds > patient.HEAD_SECONDS / 2 for seconds in ended.values())


def _is_over(one: ssl.SSLSocket, more: bytes) -> bool:
    one.settimeout(0.5)
    try:
        if more:
            one.sendall(more)
        return one.recv(1024) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_one_address_does_not_take_all_connections(tmp_path: Path) -> None:
    site = WebSite(tmp_path, "connections = 32")
    try:
        site.start("web")
        port = site.running()["port"]
        held = [site.connected(port) for _ in range(32 // patient.SHARE + 4)]
        until(lambda: sum(_is_over(each, b"") for each in held) >= 4, "those beyond its share are refused")
    finally:
        site.close()


def test_too_long_a_head_is_refused(web_site: WebSite) -> None:
    web_site.start("web")
    port = web_site.running()["port"]
    with web_site.connected(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * (patient.HEAD_BYTES + 4096))
        said = connection.recv(4096)
        assert said == b"" or b" 400 " in said
    assert web_site.answers(port)


def test_it_ends_within_seconds_while_connections_are_open(web_site: WebSite) -> None:
    process = web_site.start("web")
    port = web_site.running()["port"]
    idle, half = web_site.connected(port), web_site.connected(port)
    half.sendall(b"POST /api/v1/session HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert _ends(process) == 0
    assert time.monotonic() - begun < 12
    assert not (web_site.base / "state" / "web" / "running.json").exists()
    idle.close()
    half.close()


def test_a_certificate_that_is_replaced_is_shown_to_who_connects_anew(web_site: WebSite) -> None:
    process = web_site.start("web")
    port = web_site.running()["port"]

    def shown() -> bytes:
        with web_site.connected(port) as connection:
            return connection.getpeercert(binary_form=True) or b""

    first = shown()
    directory = web_site.base / "state" / "web"
    (directory / "server.pem").unlink()
    web_site.lanfree("web", "fingerprint")
    until(lambda: shown() != first, "the new one is shown")
    assert process.poll() is None


def test_a_changed_limit_is_taken_and_a_changed_address_starts_it_anew(web_site: WebSite) -> None:
    web_site.start("web")
    first = web_site.running()
    ConfigurationFile(web_site.file).change({("limits", "per_host"): 9})
    until(lambda: "took a new configuration" in web_site.said(), "it is taken")
    assert web_site.running() == first
    ConfigurationFile(web_site.file).change({("web", "address"): "[::1]:0"})
    until(lambda: "starting anew" in web_site.said(), "it starts anew")
    until(lambda: "console and API: https://[::1]" in web_site.said(), "it is on the new address")


def test_a_broken_file_is_told_and_changes_nothing(web_site: WebSite) -> None:
    web_site.start("web")
    first = web_site.running()
    web_site.file.write_text(web_site.file.read_text() + "\nnonsense = 1\n")
    until(lambda: "was not taken" in web_site.said(), "it is told")
    assert web_site.running() == first


def test_it_does_not_outlive_what_started_it(web_site: WebSite) -> None:
    program = (
        "import os, subprocess, sys\n"
        "words = ['-m', 'appliance.cli', '--config', sys.argv[1], 'web', '--parent', str(os.getpid())]\n"
        "subprocess.Popen([sys.executable, *words])\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(web_site.file)], stdin=subprocess.PIPE)
    try:
        pid = web_site.running()["pid"]
    finally:
        parent.kill()
        parent.wait()
    until(lambda: not _lives(pid), "it ended")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_port_that_is_taken_is_an_error_that_says_what_to_do(web_site: WebSite) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        ConfigurationFile(web_site.file).change({("web", "address"): f"127.0.0.1:{other.getsockname()[1]}"})
        assert _ends(web_site.start("web"), LONG) == 1
        assert "is taken" in web_site.said()
        assert "ss -ltnp" in web_site.said()
        # Whoever serves goes on with jobs, and the console comes when the port is free.
        web_site.start("serve")
        until(lambda: "is started anew" in web_site.said(), "it is tried again")
    assert web_site.running()["port"]
    assert "serving as" in web_site.said()


def test_serve_starts_it_anew_when_it_dies_and_ends_it(web_site: WebSite) -> None:
    serve = web_site.start("serve")
    first = web_site.running()
    os.kill(first["pid"], signal.SIGKILL)
    second = web_site.running(besides=first["pid"])
    serve.send_signal(signal.SIGTERM)
    assert _ends(serve, LONG) == 0
    assert not _lives(second["pid"])


def test_serve_takes_a_new_configuration_and_the_console_can_be_switched_off_and_on(web_site: WebSite) -> None:
    serve = web_site.start("serve")
    first = web_site.running()
    ConfigurationFile(web_site.file).change({("web", "enabled"): False})
    until(lambda: not _lives(first["pid"]), "the console ended")
    ConfigurationFile(web_site.file).change({("web", "enabled"): None})
    assert web_site.running(besides=first["pid"])
    assert web_site.said().count("serving as") == 3
    assert serve.poll() is None


def test_people_are_added_at_the_machine_without_their_passwords_being_seen(web_site: WebSite) -> None:
    made = web_site.lanfree("user", "add", "Alice", "--role", "operator", stdin="three blind mice\n")
    assert made["name"] == "alice"
    weak = web_site.lanfree("user", "reset-password", "alice", stdin="short\n", code=1)
    assert weak["error"]["code"] == "password-refused"
    web_site.lanfree("user", "disable", "alice")
    web_site.lanfree("user", "reset-password", "alice", "--administrator", stdin="three blind rats\n")
    (known,) = web_site.lanfree("user", "list")
    assert (known["disabled"], set(known["roles"])) == (False, {"administrator", "operator"})
    assert web_site.lanfree("user", "disable", "alice", code=1)["error"]["code"] == "last-administrator"
    assert web_site.lanfree("web", "code", code=7)["code"] is None
