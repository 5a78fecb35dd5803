"""Requests to an S3 store: signed, with time limits, tried again. The only importer of boto3 and botocore.

botocore's own retries are off: it would hide that an earlier attempt may have succeeded without its answer arriving, and it
gives up after seconds. ``call`` tries for as long as the settings' ``patience`` says, waiting longer each time, a random part
of it so that many workers do not come back at once.

============================================  =====================================================================
answer                                        what becomes of it
============================================  =====================================================================
no connection, lost connection, time-out      tried again
408, 429, 500, 502, 503, 504, ``SlowDown``    tried again, after ``Retry-After`` if it is there
409 conflict of two requests                  tried again
damaged on the way (checksum of the request)  tried again
507, quota                                    ``RepositoryFull``
no credentials, certificate not trusted       ``RepositoryUnavailable``, at once
any other refusal                             ``Refused`` with S3's code, for ``s3.py`` to judge
patience is at its end                        ``RepositoryUnavailable`` with the last reason and the number of attempts
============================================  =====================================================================
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import boto3.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004  # botocore's own; not a subclass of the built-in one
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
)
from urllib3.exceptions import HTTPError

from proxy.errors import ConfigurationError, IntegrityError, RepositoryFull, RepositoryUnavailable
from proxy.repository.stores.s3_settings import Credentials, S3Settings, read_credentials

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

T = TypeVar("T")

# The first wait is about one round trip to a busy store; the longest keeps a store that comes back from standing idle.
FIRST_WAIT = 0.2
LONGEST_WAIT = 20.0

# Opening a repository is something that a person waits for: a wrong endpoint is told within this many seconds.
OPENING_PATIENCE = 20.0

# A body that arrives with a wrong checksum this many times was not damaged on the way: the store gives other bytes than
# were put.
CHECKSUM_ATTEMPTS = 3

_CREDENTIALS = "set credentials_file, or the environment's AWS_ variables, or an instance role"

_connecting = threading.Lock()  # a session makes one client at a time

_AGAIN_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504, 509})
_AGAIN_CODES = frozenset(
    {
        "BadDigest",
        "ConditionalRequestConflict",
        "IncompleteBody",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "XAmzContentSHA256Mismatch",
    }
)
_FULL_STATUS = frozenset({507})
_FULL_CODES = frozenset(
    {"QuotaExceeded", "StorageFull", "InsufficientStorage", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}
)
_HINTS = {
    "AccessDenied": "the credentials may not do this: compare the bucket policy in appliance/STORAGE.md",
    "InvalidAccessKeyId": "the store does not know these credentials",
    "SignatureDoesNotMatch": "the secret key is wrong, or something on the way changes requests",
    "RequestTimeTooSkewed": "this machine's clock and the store's differ by minutes: set it by NTP",
    "ExpiredToken": "the session's credentials have expired: fetch new ones",
    "NoSuchBucket": "the bucket is made by its owner, not by Lanfree",
    "PermanentRedirect": "the bucket is in another region: set region",
    "NotImplemented": "this store lacks an ability that the repository needs (conditional put): it cannot be used",
}


class Refused(Exception):
    """The store said no. ``code`` is S3's word (for HEAD, which has no body, the number), ``status`` HTTP's."""

    def __init__(self, code: str, status: int, message: str) -> None:
        super().__init__(f"{code} ({status}): {message}")
        self.code = code
        self.status = status


class Client:
    """Calls may come from many threads. ``sleep`` waits between attempts."""

    def __init__(self, settings: S3Settings, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._settings = settings
        self._sleep = sleep
        self._s3 = _connect(settings, read_credentials(settings))
        self._date: tuple[datetime, float] | None = None

    def call(self, what: str, request: Callable[["S3Client"], T], *, patience: float | None = None) -> T:
        """Carry a request out. ``what``: for errors (``put packs/00/ab``). The request may be sent several times, and each
        attempt may have had its effect without its answer arriving."""
        begun = time.monotonic()
        limit = begun + (self._settings.patience if patience is None else patience)
        attempt = damaged = 0
        while True:
            attempt += 1
            try:
                answer = request(self._s3)
            except FlexibleChecksumError:
                damaged += 1
                if damaged >= CHECKSUM_ATTEMPTS:
                    raise IntegrityError(what, "the store gives other bytes than were put (their checksum)") from None
                why, wish = "its checksum is wrong", 0.0
            except ClientError as error:
                why, wish = self._judge(what, error)
            except (BotoCoreError, HTTPError, OSError) as error:
                why, wish = self._judge_connection(what, error), 0.0
            else:
                self._note_date(answer)
                return answer
            wait = max(_wait(attempt), min(wish, LONGEST_WAIT))
            if time.monotonic() + wait > limit:
                tried = f"{attempt} attempts in {time.monotonic() - begun:.0f} s"
                raise self._unavailable(what, f"{why}; {tried}", "look whether the store is up and reachable from here")
            self._sleep(wait)

    def server_now(self) -> datetime:
        """The store's time, by the last answer's Date. Retention is judged by the store's clock, so it is reckoned by it
        too: this machine's may be years off."""
        if self._date is None:
            raise self._unavailable("time", "the store sends no Date", "")
        date, at = self._date
        return date + timedelta(seconds=time.monotonic() - at)

    def unavailable(self, what: str, error: Refused) -> RepositoryUnavailable:
        """A refusal that nothing can be made of, with what is known about its code."""
        return self._unavailable(
            what, str(error), _HINTS.get(error.code, _HINTS["AccessDenied"] if error.status == 403 else "")
        )

    def close(self) -> None:
        """Connections are given up. Closing twice is allowed."""
        self._s3.close()

    def _judge(self, what: str, error: ClientError) -> tuple[str, float]:
        """Why to try again, and the seconds that the store asks to wait; raises what is not tried again."""
        described = error.response.get("Error", {})
        about: Mapping[str, Any] = error.response.get("ResponseMetadata", {})
        code = str(described.get("Code", ""))
        status = int(about.get("HTTPStatusCode", 0))
        if status in _FULL_STATUS or code in _FULL_CODES:
            raise RepositoryFull(self._settings.place) from None
        if status in _AGAIN_STATUS or code in _AGAIN_CODES:
            wish = 0.0
            with suppress(ValueError):
                wish = float(about.get("HTTPHeaders", {}).get("retry-after", 0))
            return f"{code} ({status})", wish
        raise Refused(code, status, str(described.get("Message", ""))) from None

    def _judge_connection(self, what: str, error: Exception) -> str:
        if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError):
            # The message of a credentials helper may hold what it printed: only its kind is told.
            raise self._unavailable(what, f"no credentials ({type(error).__name__})", _CREDENTIALS) from None
        if isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
            hint = "set ca_bundle to the PEM file of the authority that signed it"
            raise self._unavailable(what, "its certificate is not trusted", hint) from None
        if isinstance(error, ConnectionError | HTTPClientError | IncompleteReadError | HTTPError | OSError):
            return _described(error)
        raise self._unavailable(what, _described(error), "") from None

    def _unavailable(self, what: str, why: str, hint: str) -> RepositoryUnavailable:
        return RepositoryUnavailable(
            self._settings.place, f"{what}: {why}", hint=hint or "see what the store's own log says"
        )

    def _note_date(self, answer: object) -> None:
        if isinstance(answer, Mapping):
            date = date_of(answer)
            if date is not None:
                self._date = (date, time.monotonic())


def date_of(answer: Mapping[str, Any]) -> datetime | None:
    """The Date header of an answer."""
    text = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    with suppress(TypeError, ValueError):
        return parsedate_to_datetime(text).astimezone(UTC)
    return None


def _connect(settings: S3Settings, credentials: Credentials | None) -> "S3Client":
    path_style = bool(settings.endpoint) if settings.path_style is None else settings.path_style
    config = Config(
        signature_version="s3v4",
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.read_timeout,
        max_pool_connections=settings.connections,
        retries={"total_max_attempts": 1},
        s3={"addressing_style": "path" if path_style else "virtual"},
        # Puts bring their own SHA-256; what whole objects say of themselves is checked when they are read.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        tcp_keepalive=True,
    )
    try:
        with _connecting:
            return _session().client(
                "s3",
                endpoint_url=settings.endpoint or None,
                region_name=settings.region,
                verify=str(settings.ca_bundle) if settings.ca_bundle else None,
                aws_access_key_id=credentials.key if credentials else None,
                aws_secret_access_key=credentials.secret if credentials else None,
                aws_session_token=credentials.token if credentials else None,
                config=config,
            )
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError) as error:
        # Nor here: a credentials helper is asked for the first time when the client is made.
        why = f"no credentials ({type(error).__name__})"
        raise ConfigurationError("S3 repository", why, hint=_CREDENTIALS) from None
    except (BotoCoreError, ValueError, OSError) as error:  # an operating system's: there is no such credentials helper
        raise ConfigurationError("S3 repository", _described(error)) from None


@cache
def _session() -> boto3.session.Session:
    """One for all clients: each would read S3's description anew, which takes half a second and 20 MiB."""
    for name in ("botocore", "urllib3"):  # at DEBUG they write signed requests out, session tokens among them
        logging.getLogger(name).setLevel(logging.INFO)
    return boto3.session.Session()


def _wait(attempt: int) -> float:
    """Seconds before the next attempt: anything up to a limit that doubles."""
    return random.uniform(0, min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempt, 16)))  # noqa: S311  # no secret


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]
