"""The S3 client's patience and what it says when it ends. No server: nothing listens where it asks."""

import logging
import os
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, CredentialRetrievalError, EndpointConnectionError, SSLError

from proxy.errors import ConfigurationError, RepositoryFull, RepositoryUnavailable
from proxy.repository.stores import s3_client
from proxy.repository.stores.s3_client import Client, Refused, date_of
from proxy.repository.stores.s3_settings import S3Settings

pytestmark = pytest.mark.slow

SECRET = "hush-hush"


@pytest.fixture
def waits() -> list[float]:
    return []


MakeClient = Callable[[float], Client]


@pytest.fixture
def make_client(tmp_path: Path, waits: list[float]) -> Iterator[MakeClient]:
    """A client with so many seconds of patience."""
    path = tmp_path / "credentials"
    path.write_text(f"[default]\naws_access_key_id = A\naws_secret_access_key = {SECRET}\n")
    path.chmod(0o600)
    with socket.socket() as held:  # bound and not listening: connecting is refused
        held.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{held.getsockname()[1]}"
        made: list[Client] = []

        def make(patience: float) -> Client:
            settings = S3Settings("bucket", endpoint, credentials_file=path, patience=patience)
            made.append(Client(settings, sleep=waits.append))
            return made[-1]

        yield make
        for client in made:
            client.close()


@pytest.fixture
def client(make_client: MakeClient) -> Client:
    return make_client(1e9)


def answered(status: int, code: str, **headers: str) -> ClientError:
    about = {"HTTPStatusCode": status, "HTTPHeaders": {k.replace("_", "-"): v for k, v in headers.items()}}
    response = {"Error": {"Code": code, "Message": "said the store"}, "ResponseMetadata": about}
    return ClientError(response, "PutObject")  # type: ignore[arg-type]


class Answers:
    """Raises one error after the other, then gives ``result``."""

    def __init__(self, *errors: Exception, result: object = "done") -> None:
        self.errors = list(errors)
        self.result = result

    def __call__(self, _: object) -> object:
        if self.errors:
            raise self.errors.pop(0)
        return self.result


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [
        answered(503, "SlowDown"),
        answered(500, "InternalError"),
        answered(502, ""),
        answered(429, "Whatever"),
        answered(408, "RequestTimeout"),
        answered(409, "ConditionalRequestConflict"),
        answered(400, "RequestTimeout"),
        answered(400, "BadDigest"),
        EndpointConnectionError(endpoint_url="http://store", error="refused"),
        ConnectionResetError("reset"),
    ],
    ids=str,
)
def test_what_may_pass_is_tried_again(client: Client, waits: list[float], error: Exception) -> None:
    assert client.call("put a", Answers(error, error, error)) == "done"
    assert len(waits) == 3


def test_waits_grow_are_random_and_have_a_limit(client: Client, waits: list[float]) -> None:
    client.call("put a", Answers(*[answered(503, "SlowDown") for _ in range(40)]))
    assert all(wait <= s3_client.LONGEST_WAIT for wait in waits)
    assert all(wait <= s3_client.FIRST_WAIT * 2 ** (n + 1) for n, wait in enumerate(waits))
    assert len(set(waits)) == 40
    assert max(waits) > 5


def test_a_wish_to_wait_is_heard_and_has_a_limit(client: Client, waits: list[float]) -> None:
    client.call(
        "put a", Answers(answered(503, "SlowDown", retry_after="7"), answered(503, "SlowDown", retry_after="86400"))
    )
    assert waits == [7.0, s3_client.LONGEST_WAIT]


def test_nothing_that_is_refused_for_good_is_tried_again(client: Client, waits: list[float]) -> None:
    for code, status in (("AccessDenied", 403), ("NoSuchKey", 404), ("PreconditionFailed", 412), ("InvalidRange", 416)):
        with pytest.raises(Refused) as refused:
            client.call("put a", Answers(answered(status, code)))
        assert (refused.value.code, refused.value.status) == (code, status)
    assert waits == []


def test_a_full_store_is_told_as_such(client: Client) -> None:
    for error in (answered(507, "InsufficientStorage"), answered(403, "QuotaExceeded")):
        with pytest.raises(RepositoryFull, match="s3://bucket"):
            client.call("put a", Answers(error))


def test_credentials_helpers_words_and_secrets_stay_out_of_errors(client: Client) -> None:
    error = CredentialRetrievalError(provider="process", error_msg=f"printed {SECRET}")
    with pytest.raises(RepositoryUnavailable, match="no credentials") as told:
        client.call("put a", Answers(error))
    assert SECRET not in f"{told.value!r}{told.value}{told.value.hint}"


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the ordinary chain looks for a program that prints credentials; there is none yet."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    program = tmp_path / "credentials-helper"
    (tmp_path / "config").write_text(f"[default]\ncredential_process = {program}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3_client._session.cache_clear()
    yield program
    s3_client._session.cache_clear()


@pytest.mark.parametrize(
    "script",
    [
        f"echo {SECRET} >&2; exit 1",
        f"echo {SECRET}",
        f'echo \'{{"Version": 1, "{SECRET}": "{SECRET}"}}\'',
        f'echo \'{{"Version": "{SECRET}"}}\'',
        f"printf '{SECRET}\\377'",
    ],
)
def test_a_credentials_helper_that_fails_when_the_client_is_made_keeps_its_secrets(helper: Path, script: str) -> None:
    helper.write_text(f"#!/bin/sh\n{script}\n")
    helper.chmod(0o700)
    with pytest.raises(ConfigurationError, match="S3 repository") as told:
        Client(S3Settings("bucket", "http://127.0.0.1:1"))
    assert SECRET not in f"{told.value!r}{told.value}{told.value.hint}"


def test_a_credentials_helper_that_is_not_there_is_a_mistake_of_the_configuration(helper: Path) -> None:
    with pytest.raises(ConfigurationError, match=helper.name):
        Client(S3Settings("bucket", "http://127.0.0.1:1"))


@pytest.mark.slow
def test_a_certificate_that_is_not_trusted_is_told_at_once(client: Client, waits: list[float]) -> None:
    error = SSLError(endpoint_url="https://store", error="[SSL: CERTIFICATE_VERIFY_FAILED] self-signed")
    with pytest.raises(RepositoryUnavailable, match="certificate") as told:
        client.call("put a", Answers(error))
    assert "ca_bundle" in told.value.hint
    assert waits == []


@pytest.mark.slow
def test_an_endpoint_where_nobody_listens_is_told_with_its_name(make_client: MakeClient, waits: list[float]) -> None:
    client = make_client(1.0)
    with pytest.raises(RepositoryUnavailable, match=r"s3://bucket at http://127.0.0.1:\d+: put a: .*attempts") as told:
        client.call("put a", lambda s3: s3.put_object(Bucket="bucket", Key="a", Body=b""))
    assert SECRET not in f"{told.value!r}{told.value}"
    assert waits


def test_signed_requests_are_not_logged_whatever_the_level(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(0.1)
    with caplog.at_level(logging.DEBUG), pytest.raises(RepositoryUnavailable):
        client.call("put a", lambda s3: s3.put_object(Bucket="bucket", Key="a", Body=b""))
    assert "Signature=" not in caplog.text
    assert "AWS4-HMAC" not in caplog.text
    assert SECRET not in caplog.text


def test_an_endpoint_that_botocore_refuses_is_a_mistake_of_the_configuration() -> None:
    with pytest.raises(ConfigurationError, match="S3 repository"):
        Client(S3Settings("bucket", "https://not a host"))


def test_the_stores_time_is_that_of_its_answers(client: Client) -> None:
    with pytest.raises(RepositoryUnavailable, match="Date"):
        client.server_now()
    answer = {"ResponseMetadata": {"HTTPHeaders": {"date": "Sun, 22 Nov 2065 10:00:00 GMT"}}}
    client.call("look", Answers(result=answer))
    assert abs((client.server_now() - datetime(2065, 11, 22, 10, tzinfo=UTC)).total_seconds()) < 5
    assert date_of({"ResponseMetadata": {"HTTPHeaders": {"date": "yesterday"}}}) is None
    assert date_of({}) is None
