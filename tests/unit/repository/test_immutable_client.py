"""The proxy's side of the immutability helper, against a socket that answers as a test wants."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from proxy.errors import ConfigurationError, FormatError, ObjectRetained, RepositoryUnavailable
from proxy.repository.stores.immutable import ImmutabilityClient, is_immutable

Answering = Callable[[bytes], tuple[ImmutabilityClient, list[dict[str, Any]]]]


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Answering]:
    """A client, and the requests that it made to somebody who answers each with the same bytes."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / "socket"))
    threads: list[threading.Thread] = []

    def answer(data: bytes) -> tuple[ImmutabilityClient, list[dict[str, Any]]]:
        requests: list[dict[str, Any]] = []

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as lines:
                requests.append(json.loads(lines.readline()))
                connection.sendall(data)

        listener.listen()
        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return ImmutabilityClient(tmp_path / "socket", Path("/backup")), requests

    yield answer
    for thread in threads:
        thread.join()
    listener.close()


def test_a_request_names_root_object_and_seconds(answering: Answering) -> None:
    client, requests = answering(b'{"ok": true, "seconds": 60}\n')
    client.retain("packs/00/a", timedelta(minutes=1))
    assert requests == [{"op": "retain", "root": "/backup", "name": "packs/00/a", "seconds": 60.0}]


def test_an_object_whose_time_is_not_over_is_told_with_its_time(answering: Answering) -> None:
    client, _ = answering(b'{"ok": false, "code": "retained", "why": "...", "seconds": 86400}\n')
    with pytest.raises(ObjectRetained) as told:
        client.release("packs/00/a")
    assert told.value.until is not None
    assert abs(told.value.until - datetime.now(UTC) - timedelta(days=1)) < timedelta(minutes=1)


@pytest.mark.parametrize("seconds", ["1e300", '"soon"', "-1", "NaN", "null"])
def test_a_time_that_cannot_be_is_left_out(answering: Answering, seconds: str) -> None:
    client, _ = answering(b'{"ok": false, "code": "retained", "why": "", "seconds": %s}\n' % seconds.encode())
    with pytest.raises(ObjectRetained) as told:
        client.release("packs/00/a")
    assert told.value.until is None


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("missing", FileNotFoundError),
        ("unsupported", ConfigurationError),
        ("limit", ConfigurationError),
        ("root", ConfigurationError),
        ("denied", ConfigurationError),
        ("busy", RepositoryUnavailable),
        ("failed", RepositoryUnavailable),
        ("a word from the future", RepositoryUnavailable),
    ],
)
def test_each_refusal_is_an_error_of_ours(answering: Answering, code: str, kind: type[Exception]) -> None:
    client, _ = answering(json.dumps({"ok": False, "code": code, "why": "so"}).encode() + b"\n")
    with pytest.raises(kind, match="packs/00/a"):
        client.retain("packs/00/a", timedelta(days=1))


@pytest.mark.parametrize("data", [b"", b"nonsense\n", b"[1]\n", b"7\n", b"x" * 10000])
def test_whoever_answers_nonsense_is_not_the_helper(answering: Answering, data: bytes) -> None:
    client, _ = answering(data)
    with pytest.raises(FormatError, match="one line of JSON"):
        client.retain("packs/00/a", timedelta(days=1))


def test_a_helper_that_is_not_there_is_told_with_its_socket(tmp_path: Path) -> None:
    client = ImmutabilityClient(tmp_path / "none", Path("/backup"))
    with pytest.raises(RepositoryUnavailable, match="none") as told:
        client.retain("packs/00/a", timedelta(days=1))
    assert "lanfree-immutable" in told.value.hint


def test_ordinary_files_are_not_immutable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not is_immutable(tmp_path / "file")
    assert not is_immutable(Path("/proc/self/status"))
