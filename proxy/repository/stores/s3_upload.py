"""Bytes on their way into a bucket: one request, or an upload in parts.

An upload in parts becomes an object only when it is completed, under the same condition as a put in one request. One that
nobody completes costs its owner money for ever: those that are given up are aborted, and those that a crash left are when the
store is opened a day later (``sweep``).
"""

import base64
import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypedDict

from proxy.errors import LanfreeError
from proxy.repository.stores.s3_client import Client, Refused
from proxy.units import KiB, MiB

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

# Packs go in one request, which costs one round trip. Larger objects (indexes) go in parts: a connection that breaks then
# costs one part. Amazon takes at most 5 GiB in one request, parts of at least 5 MiB, and 10,000 of them.
PART = 64 * MiB
MOST_PARTS = 10_000

# Parts on their way at once. They are views of the caller's memory; more would not fill a usual link better.
PARTS_AT_ONCE = 4

# No upload takes a day: see ``posix.ORPHAN_SECONDS``.
ORPHAN = timedelta(days=1)

# Copied at once while sending: http.client asks for 16 KiB at a time, and each call into Python costs as much as copying that.
BLOCK = 256 * KiB

TOKEN = "lanfree-put"  # noqa: S105  # the name of a metadata field


class Condition(TypedDict, total=False):
    """``*``: only if there is no object of that name."""

    IfNoneMatch: str


class Retention(TypedDict, total=False):
    """Object lock from the first moment on."""

    ObjectLockMode: Literal["COMPLIANCE", "GOVERNANCE"]
    ObjectLockRetainUntilDate: datetime


@dataclass(frozen=True, slots=True)
class Put:
    """One object to be put: ``name`` for errors, ``token`` to know it again, whether it must be ``new``."""

    name: str
    key: str
    token: str
    new: bool
    retention: Retention

    @property
    def condition(self) -> Condition:
        return {"IfNoneMatch": "*"} if self.new else {}


class Uploader:
    """Puts objects into ``bucket``. Calls may come from many threads. ``part``: bytes of a part, and above which there
    are parts at all."""

    def __init__(self, client: Client, bucket: str, *, part: int = PART) -> None:
        self._client = client
        self._bucket = bucket
        self._part = part

    def put(self, put: Put, view: memoryview) -> None:
        """Raises ``Refused``: ``PreconditionFailed`` and what else a repeated request may be told after all went well."""
        if view.nbytes <= self._part:
            self._whole(put, view)
        else:
            self._in_parts(put, view)

    def sweep(self, prefix: str, *, patience: float) -> None:
        """Abort the uploads under ``prefix`` that are older than a day by the store's clock. ``patience``: seconds for which
        each request is tried again."""
        oldest = self._client.server_now() - ORPHAN
        markers: dict[str, Any] = {}
        while True:
            page = self._client.call(
                "list uploads",
                lambda s3, at=markers: s3.list_multipart_uploads(Bucket=self._bucket, Prefix=prefix, **at),  # type: ignore[misc]
                patience=patience,
            )
            for upload in page.get("Uploads", []):
                if upload["Initiated"] < oldest:
                    self._abort(upload["Key"], upload["UploadId"], patience=patience)
            if not page.get("IsTruncated"):
                return
            markers = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def _whole(self, put: Put, view: memoryview) -> None:
        digest = _sha256(view)
        self._client.call(
            f"put {put.name}",
            lambda s3: s3.put_object(
                Bucket=self._bucket,
                Key=put.key,
                Body=_body(view),
                ChecksumSHA256=digest,
                Metadata={TOKEN: put.token},
                **put.condition,
                **put.retention,
            ),
        )

    def _in_parts(self, put: Put, view: memoryview) -> None:
        upload = self._client.call(
            f"put {put.name}",
            lambda s3: s3.create_multipart_upload(
                Bucket=self._bucket,
                Key=put.key,
                ChecksumAlgorithm="SHA256",
                Metadata={TOKEN: put.token},
                **put.retention,
            ),
        )["UploadId"]
        try:
            parts = self._upload_parts(put, upload, view)
            self._client.call(
                f"put {put.name}",
                lambda s3: s3.complete_multipart_upload(
                    Bucket=self._bucket,
                    Key=put.key,
                    UploadId=upload,
                    MultipartUpload={"Parts": parts},
                    **put.condition,
                ),
            )
        except BaseException:
            with suppress(LanfreeError):  # the first error is the one to tell; sweep is the second chance
                self._abort(put.key, upload)
            raise

    def _upload_parts(self, put: Put, upload: str, view: memoryview) -> "list[CompletedPartTypeDef]":
        size = max(self._part, -(-view.nbytes // MOST_PARTS))
        starts = range(0, view.nbytes, size)

        def one(number: int) -> "CompletedPartTypeDef":
            part = view[starts[number - 1] : starts[number - 1] + size]
            digest = _sha256(part)
            answer = self._client.call(
                f"put {put.name}, part {number}",
                lambda s3: s3.upload_part(
                    Bucket=self._bucket,
                    Key=put.key,
                    UploadId=upload,
                    PartNumber=number,
                    Body=_body(part),
                    ChecksumSHA256=digest,
                ),
            )
            return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": digest}

        with ThreadPoolExecutor(PARTS_AT_ONCE, "s3-parts") as threads:
            waiting = [threads.submit(one, number) for number in range(1, len(starts) + 1)]
            try:
                return [part.result() for part in waiting]
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def _abort(self, key: str, upload: str, *, patience: float | None = None) -> None:
        with suppress(Refused):  # completed or aborted by somebody else
            self._client.call(
                "abort an upload",
                lambda s3: s3.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload),
                patience=patience,
            )


def _sha256(view: memoryview) -> str:
    return base64.b64encode(hashlib.sha256(view).digest()).decode()


def _body(view: memoryview) -> BinaryIO:
    """Memory as a file to be sent: botocore takes no memoryview, and a copy of each part would double what it needs. It is sent
    block by block, and each has the socket's time limit for itself: a slow line gets a large part through."""
    return io.BufferedReader(_View(view), BLOCK)


class _View(io.RawIOBase):
    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self._view)}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:  # typeshed's WriteableBuffer is not there at run time
        part = self._view[self._at : self._at + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)
