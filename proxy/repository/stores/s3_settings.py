"""Where an S3 repository is and how to talk to it."""

import configparser
import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from proxy.errors import ConfigurationError
from proxy.repository.stores.names import check_name

# Amazon's rule is stricter (lower case, no underscore); other stores have buckets from before it.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}")


class LockMode(StrEnum):
    """Object lock. In governance mode somebody with a special permission can end a retention, in compliance mode nobody
    can, the account's owner included: a mistake there stays until its time is over."""

    GOVERNANCE = "GOVERNANCE"
    COMPLIANCE = "COMPLIANCE"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What requests are signed with. Never shown."""

    key: str = field(repr=False)
    secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class S3Settings:
    """``endpoint``: URL of the store, empty for Amazon's own. ``prefix``: a folder in the bucket for this repository.
    ``path_style``: bucket in the path rather than in the host name; ``None``: wherever an endpoint is named.

    ``credentials_file``: in the format of ``~/.aws/credentials``, section ``profile``; ``None``: the ordinary chain
    (environment, shared files, instance role). ``ca_bundle``: PEM file of the authority that signed the endpoint's
    certificate. ``lock``: with which object lock ``retain`` works, ``None``: not at all.

    ``keep_versions``: in a bucket with versioning, leave what was deleted to the bucket's own lifecycle rules. Otherwise
    old versions are removed at once, as far as the bucket allows it.
    """

    bucket: str
    endpoint: str = ""
    prefix: str = ""
    region: str = "us-east-1"
    path_style: bool | None = None
    credentials_file: Path | None = None
    profile: str = "default"
    ca_bundle: Path | None = None
    lock: LockMode | None = None
    keep_versions: bool = False

    connect_timeout: float = 10.0
    """Seconds. A lost SYN is sent again after 1, 3 and 7 s: shorter gives up on a merely busy path."""

    read_timeout: float = 60.0
    """Seconds without a byte. Stores answer a put when it is durable, which takes seconds under load; longer would let a
    dead connection hold a worker up."""

    patience: float = 300.0
    """Seconds for which one request is tried again. Outlasts a failover of a store; more would hold a run that cannot
    succeed, less would give up hours of work for a hiccup."""

    connections: int = 16
    """Kept open at most: above the threads that use one store at once (pack writers, readers, parts of an upload)."""

    def __post_init__(self) -> None:
        url = urlsplit(self.endpoint)
        if _BUCKET.fullmatch(self.bucket) is None:
            raise ConfigurationError("S3 repository", f"{self.bucket!r} is not the name of a bucket")
        if url.username is not None or url.password is not None:
            raise ConfigurationError(
                "S3 repository", "the endpoint's URL holds credentials", hint="put them into credentials_file"
            )
        if self.endpoint and (url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment):
            raise ConfigurationError("S3 repository", f"{self.endpoint!r} is not the URL of an endpoint")
        if self.prefix:
            check_name(self.prefix)

    @property
    def place(self) -> str:
        """For people: ``s3://bucket/prefix at endpoint``."""
        folder = f"/{self.prefix}" if self.prefix else ""
        return f"s3://{self.bucket}{folder}" + (f" at {self.endpoint}" if self.endpoint else "")


def read_credentials(settings: S3Settings) -> Credentials | None:
    """From the file that the settings name; ``None`` if they name none. Raises ``ConfigurationError``, never with content."""
    path = settings.credentials_file
    if path is None:
        return None
    parser = configparser.RawConfigParser()
    try:
        if path.stat().st_mode & 0o007:
            raise ConfigurationError(str(path), "others can read these credentials", hint=f"chmod 600 {path}")
        parser.read_string(path.read_text())
        section = parser[settings.profile]
        return Credentials(
            section["aws_access_key_id"], section["aws_secret_access_key"], section.get("aws_session_token")
        )
    except OSError as error:
        raise ConfigurationError(str(path), f"cannot be read: {error.strerror}") from None
    except (configparser.Error, KeyError, UnicodeDecodeError):
        raise ConfigurationError(
            str(path),
            f"has no section [{settings.profile}] with aws_access_key_id and aws_secret_access_key",
            hint="its format is that of ~/.aws/credentials",
        ) from None
