"""Objects in a bucket of an S3 store.

New objects
-----------
``put`` of a new name is a conditional put (``If-None-Match: *``), which of many proxies lets one through. Its answer can get
lost after it was carried out; the next attempt is then refused because of our own object. Each put therefore carries a random
token in the object's metadata, and a refusal is believed only after a look at whose token is there. A request that was given
up (time-out) and arrives late does no harm: the name is taken by then. A late *replacement* can bring an earlier state back:
replaced are only objects that bear it (leases, states).

Checksums
---------
Every put brings the SHA-256 of its bytes, which the store compares before the object appears (a store that does not know the
header compares the signed hash over plain HTTP, and relies on TLS otherwise). Whole objects are compared with the stored
checksum when they are read; ranges are by the chunk ids inside.

Buckets with versions and object lock
-------------------------------------
Where a bucket keeps versions, deleting only hides an object behind a delete marker. ``delete`` therefore

1. refuses (``ObjectRetained``) what is retained, although the store would take the marker;
2. puts the marker: the name is gone for every proxy at once;
3. removes the versions beneath it and then the marker, unless somebody has put the name anew. A version that the bucket
   refuses to remove (retained, or the credentials may not) stays, and so does the marker: lifecycle rules clean up.

Whoever steals the proxy's credentials can hide objects and put others over them, but not remove retained versions: the
bucket's owner gets them back by removing what is newer (appliance/STORAGE.md). Ages and retention are reckoned by the store's
Date header, never by this machine's clock.
"""

import re
import secrets
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.closing import Closeable
from proxy.errors import ConfigurationError, FormatError, LanfreeError, ObjectRetained, RepositoryUnavailable
from proxy.repository.stores.names import LONGEST_RETENTION, check_name, check_size, is_retained
from proxy.repository.stores.s3_client import OPENING_PATIENCE, Client, Refused, date_of
from proxy.repository.stores.s3_settings import LockMode, S3Settings
from proxy.repository.stores.s3_upload import ORPHAN, PART, TOKEN, Put, Retention, Uploader

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

# Where objects are that can be large enough for an upload in parts. Other people's uploads in the bucket are theirs.
_LARGE = ("packs/", "indexes/")

# Somebody may delete the name between a refused put and the look at it, or the store may lose an upload in parts: this
# often a put begins anew before it is told.
PUT_ROUNDS = 3

# What ``check_conditional_put`` puts. The bucket may hold other people's objects that begin alike: exactly these are ours.
_CHECK = "check-"
_CHECK_NAME = re.compile(_CHECK + "[0-9a-f]{16}")


class S3Store(Closeable):
    """``retain_for``: what ``is_retained`` names is locked for so long from the moment it is put (needs ``settings.lock``).
    ``part``: objects of more bytes are uploaded in parts of so many.

    Raises ``RepositoryUnavailable`` when the bucket cannot be used, ``ConfigurationError`` when it has no object lock and
    the settings ask for it. All methods may be called from many threads.
    """

    can_retain: bool

    def __init__(self, settings: S3Settings, *, retain_for: timedelta | None = None, part: int = PART) -> None:
        self.settings = settings
        self.can_retain = settings.lock is not None
        if retain_for is not None and not self.can_retain:
            raise ConfigurationError("retention", "keeping objects for a time needs object lock", hint="set lock")
        self._client = Client(settings)
        self._bucket = settings.bucket
        self._prefix = f"{settings.prefix}/" if settings.prefix else ""
        self._retain_for = retain_for
        self._uploads = Uploader(self._client, self._bucket, part=part)
        self._check_bucket()
        # Not every store lists uploads, nor may everybody; lifecycle rules do the same.
        with suppress(Refused, LanfreeError):
            for folder in _LARGE:
                self._uploads.sweep(self._prefix + folder, patience=self._opening_patience)

    def put(self, name: str, data: bytes | memoryview, *, new: bool = True) -> None:
        key = self._key(name)
        view = memoryview(data).cast("B")
        if not new and self.can_retain:
            with suppress(FileNotFoundError):
                self._refuse_retained(name)
        for _ in range(PUT_ROUNDS):
            put = Put(name, key, secrets.token_hex(16), new, self._retention(name))
            try:
                self._uploads.put(put, view)
            except Refused as error:
                if error.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.PRECONDITION_FAILED):
                    raise self._client.unavailable(f"put {name}", error) from None
                # It lost against another put, or the upload is not known any more. Both can also be the second answer to
                # a request that succeeded.
                there = self._token(name)
                if there == put.token:
                    return
                if there is not None and error.status == HTTPStatus.PRECONDITION_FAILED:
                    raise FileExistsError(name) from None
            else:
                return
        raise RepositoryUnavailable(
            self.settings.place,
            f"put {name}: refused {PUT_ROUNDS} times, and there is none",
            hint="where versions are kept, some stores take a delete marker for an object: let lifecycle rules remove it",
        )

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if length is None and offset == 0:
            return self._get_whole(name)
        if not length:
            size = self.size(name)
            if length == 0 and offset > size:
                raise FormatError(name, f"has {size} bytes; 0 at {offset} were asked for")
            length = 0 if length == 0 else max(size - offset, 0)
        return self._get_range(name, offset, length) if length else b""

    def size(self, name: str) -> int:
        return self._head(name)["ContentLength"]

    def list(self, prefix: str) -> Iterator[str]:
        """Page by page, so that millions of names need no memory."""
        if folder := prefix.rpartition("/")[0]:
            check_name(folder)
        last = ""
        for key in self._keys(self._prefix + prefix):
            name = key[len(self._prefix) :]
            if name < last:
                raise RepositoryUnavailable(self.settings.place, f"lists {name} after {last}: out of order")
            if name > last and _is_ours(name):
                yield name
            last = name

    def delete(self, name: str) -> None:
        key = self._key(name)
        if self.can_retain:
            try:
                self._refuse_retained(name)
            except FileNotFoundError:
                return
        try:
            gone = self._client.call(f"delete {name}", lambda s3: s3.delete_object(Bucket=self._bucket, Key=key))
        except Refused as error:
            if not isinstance(self._missing_or(error, "delete", name), FileNotFoundError):
                raise self._client.unavailable(f"delete {name}", error) from None
            return
        if gone.get("DeleteMarker") and not self.settings.keep_versions:
            with suppress(Refused, LanfreeError):  # the name is gone; what is left beneath is the lifecycle rules'
                self._purge(key, gone.get("VersionId", ""))

    def age(self, name: str) -> float:
        head = self._head(name)
        now = date_of(head)
        if now is None:
            raise RepositoryUnavailable(self.settings.place, f"age of {name}: the store sends no Date")
        return max((now - head["LastModified"].astimezone(UTC)).total_seconds(), 0.0)

    def retain(self, name: str, until: datetime) -> None:
        key = self._key(name)
        mode = self.settings.lock
        if mode is None:
            raise ConfigurationError("retention", f"{self.settings.place} is used without object lock", hint="set lock")
        head = self._head(name)
        now = self._client.server_now()
        if until - now > LONGEST_RETENTION:
            raise ConfigurationError(
                "retention", f"{until:%Y-%m-%d} is further away than {LONGEST_RETENTION.days} days"
            )
        until = _whole_seconds(until)
        before = head.get("ObjectLockRetainUntilDate")
        if until <= now or (before is not None and before >= until):
            return
        if before is not None and before > now and head.get("ObjectLockMode") == LockMode.COMPLIANCE:
            mode = LockMode.COMPLIANCE  # never back to the weaker one
        retention: Any = {"Mode": mode.value, "RetainUntilDate": until}
        version: Any = {"VersionId": head["VersionId"]} if "VersionId" in head else {}
        try:
            self._client.call(
                f"retain {name}",
                lambda s3: s3.put_object_retention(Bucket=self._bucket, Key=key, Retention=retention, **version),
            )
        except Refused as error:
            # Somebody may have extended it further since the look; the store then refuses the earlier date.
            if error.status != HTTPStatus.NOT_FOUND:
                there = self._head(name).get("ObjectLockRetainUntilDate")
                if there is not None and there >= until:
                    return
            raise self._missing_or(error, "retain", name) from None

    def local_path(self, name: str) -> Path | None:
        """Nothing lies in files here."""
        check_name(name)
        return None  # the type checker wants it said

    def check_conditional_put(self) -> None:
        """Whether the store refuses to put a name that exists, on which everything rests: for ``init`` and the doctor.
        Puts and deletes one empty object. Raises ``RepositoryUnavailable``."""
        self._sweep_checks()
        name = _CHECK + secrets.token_hex(8)
        self.put(name, b"")
        try:
            self.put(name, b"")
        except FileExistsError:
            return
        finally:
            self.delete(name)
        raise RepositoryUnavailable(
            self.settings.place,
            "puts over a name that exists, although asked not to",
            hint="this store lacks conditional put and cannot hold a repository",
        )

    def close(self) -> None:
        """Connections are given up; closing twice is allowed."""
        self._client.close()

    def _sweep_checks(self) -> None:
        """Remove what checks that were killed left behind, a day later."""
        for name in self.list(_CHECK):
            with suppress(FileNotFoundError, ObjectRetained):
                if _CHECK_NAME.fullmatch(name) and self.age(name) > ORPHAN.total_seconds():
                    self.delete(name)

    @property
    def _opening_patience(self) -> float:
        return min(self.settings.patience, OPENING_PATIENCE)

    def _check_bucket(self) -> None:
        patience = self._opening_patience
        try:
            self._client.call("open", lambda s3: s3.head_bucket(Bucket=self._bucket), patience=patience)
        except Refused as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise self._client.unavailable("open", error) from None
            hint = "its owner makes it: see appliance/STORAGE.md"
            raise RepositoryUnavailable(self.settings.place, "there is no such bucket", hint=hint) from None
        if not self.can_retain:
            return
        try:
            answer = self._client.call("open", lambda s3: s3.get_object_lock_configuration(Bucket=self._bucket))
            locked = answer["ObjectLockConfiguration"].get("ObjectLockEnabled") == "Enabled"
        except Refused as error:
            if error.status == HTTPStatus.FORBIDDEN:
                raise self._client.unavailable("object lock", error) from None
            locked = False
        if not locked:
            hint = "make a new bucket with object lock, or unset lock"
            raise ConfigurationError(self.settings.place, "the bucket has no object lock", hint=hint)

    def _key(self, name: str) -> str:
        return self._prefix + check_name(name)

    def _head(self, name: str) -> "HeadObjectOutputTypeDef":
        key = self._key(name)
        try:
            return self._client.call(f"look at {name}", lambda s3: s3.head_object(Bucket=self._bucket, Key=key))
        except Refused as error:
            raise self._missing_or(error, "look at", name) from None

    def _get_whole(self, name: str) -> bytes:
        key = self._key(name)

        def fetch(s3: "S3Client") -> bytes:
            answer = s3.get_object(Bucket=self._bucket, Key=key, ChecksumMode="ENABLED")
            with closing(answer["Body"]) as body:
                check_size(name, answer["ContentLength"])
                return body.read()

        try:
            return self._client.call(f"get {name}", fetch)
        except Refused as error:
            raise self._missing_or(error, "get", name) from None

    def _get_range(self, name: str, offset: int, length: int) -> bytes:
        key = self._key(name)

        def fetch(s3: "S3Client") -> tuple[str, bytes]:
            asked = f"bytes={offset}-{offset + length - 1}"
            answer = s3.get_object(Bucket=self._bucket, Key=key, Range=asked)
            with closing(answer["Body"]) as body:
                place = answer.get("ContentRange", "")
                return place, body.read() if place else b""

        try:
            place, data = self._client.call(f"get {name}", fetch)
        except Refused as error:
            if error.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise FormatError(name, f"is too short: {length} bytes at {offset} were asked for") from None
            raise self._missing_or(error, "get", name) from None
        if not place.startswith(f"bytes {offset}-"):
            raise RepositoryUnavailable(self.settings.place, f"get {name}: asked for a range, the store sent another")
        if len(data) != length:
            raise FormatError(name, f"is too short: {length} bytes at {offset} were asked for, {len(data)} are there")
        return data

    def _keys(self, prefix: str) -> Iterator[str]:
        at: dict[str, Any] = {}
        while True:
            try:
                page = self._client.call(
                    "list objects",
                    lambda s3, at=at: s3.list_objects_v2(Bucket=self._bucket, Prefix=prefix, **at),  # type: ignore[misc]
                )
            except Refused as error:
                raise self._client.unavailable("list objects", error) from None
            for entry in page.get("Contents", []):
                yield entry["Key"]
            if not page.get("IsTruncated"):
                return
            if not page.get("NextContinuationToken"):
                raise RepositoryUnavailable(self.settings.place, "a listing breaks off in the middle")
            at = {"ContinuationToken": page["NextContinuationToken"]}

    def _token(self, name: str) -> str | None:
        """The token of the put that made what is there; ``None`` if nothing is."""
        try:
            return self._head(name)["Metadata"].get(TOKEN, "")
        except FileNotFoundError:
            return None

    def _retention(self, name: str) -> Retention:
        if self._retain_for is None or self.settings.lock is None or not is_retained(name):
            return {}
        until = _whole_seconds(self._client.server_now() + self._retain_for)
        return {"ObjectLockMode": self.settings.lock.value, "ObjectLockRetainUntilDate": until}

    def _refuse_retained(self, name: str) -> None:
        head = self._head(name)
        until = head.get("ObjectLockRetainUntilDate")
        if until is not None and until > self._client.server_now():
            raise ObjectRetained(name, until.astimezone(UTC))
        if head.get("ObjectLockLegalHoldStatus") == "ON":
            raise ObjectRetained(name, why="legal hold")

    def _purge(self, key: str, marker: str) -> None:
        """Remove what lies beneath our delete marker, and then it; see the module's text."""
        beneath: list[str] = []
        at: dict[str, Any] = {}
        while True:
            page = self._client.call(
                "list versions",
                lambda s3, at=at: s3.list_object_versions(Bucket=self._bucket, Prefix=key, **at),  # type: ignore[misc]
            )
            entries = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            versions = {e["VersionId"]: e["IsLatest"] for e in entries if e["Key"] == key}
            if any(latest and version != marker for version, latest in versions.items()):
                return  # somebody has put the name anew
            beneath += [version for version in versions if version != marker]
            if not page.get("IsTruncated") or page.get("NextKeyMarker") != key:
                break
            at = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page.get("NextVersionIdMarker", "")}
        for version in [*beneath, marker]:
            self._client.call(
                "delete a version",
                lambda s3, version=version: s3.delete_object(Bucket=self._bucket, Key=key, VersionId=version),  # type: ignore[misc]
            )

    def _missing_or(self, error: Refused, what: str, name: str) -> Exception:
        if error.status == HTTPStatus.NOT_FOUND:
            if error.code not in ("NoSuchKey", "NoSuchVersion"):
                # Answers to HEAD have no body that tells what is missing: a bucket that is gone must not pass for objects
                # that are.
                self._check_bucket()
            return FileNotFoundError(name)
        return self._client.unavailable(f"{what} {name}", error)


def _is_ours(name: str) -> bool:
    """Whether the object can be the repository's: buckets hold folder markers and other people's things too."""
    try:
        return bool(check_name(name))
    except FormatError:
        return False


def _whole_seconds(moment: datetime) -> datetime:
    """Rounded up: stores keep retention in seconds, and some cut the rest off."""
    return (moment + timedelta(microseconds=999_999)).replace(microsecond=0).astimezone(UTC)
