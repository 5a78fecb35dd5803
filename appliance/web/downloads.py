"""Files on their way to whoever asked: one as it is, or many as an archive, made while it is sent.

::

    request ──> restore point opened, paths looked at (what fails here is a plain answer)
                  └─> a thread: traversal ──> archive ──> BytePipe ──> the connection
                       holds the session; ends with the archive, with the client, or when nothing is taken for a minute
"""

import hashlib
import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from api.auth.roles import Caller
from api.ports.files import Download, RangeRefused, Span
from api.refusals import NotFound, TooMany
from api.schemas.files import DownloadLink, DownloadRequest, Format
from api.schemas.guest_names import text_of
from appliance.auditing import audit
from appliance.web.mounts import WebMounts
from appliance.web.pipe import STALL, BytePipe
from appliance.web.reaching import point_in_reach
from appliance.wiring import Services
from mounter.ports import FileEntry, FileType, shown
from mounter.restore.selection import chosen_of
from mounter.restore.sink import PlainSink, ZstdSink
from mounter.restore.tar import TarTarget
from mounter.restore.tree import Options, RestoreReport, restore_files
from mounter.restore.zip import ZipTarget
from mounter.session import MountSession
from mounter.targets import FileTarget
from proxy.errors import GuestFileNotFound, LanfreeError, MountFailed, RestoreRefused, TargetFailed
from proxy.model import RestorePoint

_LOG = logging.getLogger(__name__)

MOST = 8
"""At once. Each has a thread, some 20 MiB, and its part of one connection to a restore point."""

MOST_OF_ONE = 4
"""Of one caller: browsers fetch several files at once, and others want some as well."""

LINK_SECONDS = 60.0
"""For which a link is good: a browser follows it at once."""

MOST_LINKS = 1000
"""That wait for their browser."""

PATH = "/api/v1/downloads/"

_MEDIA = {
    Format.RAW: "application/octet-stream",
    Format.ZIP: "application/zip",
    Format.TAR: "application/x-tar",
    Format.TAR_ZST: "application/zstd",
}


@dataclass(frozen=True, slots=True)
class _Link:
    owner: str
    request: DownloadRequest
    until: float


class Downloads:
    """``download``, ``offer`` and ``redeem`` of ``api.ports.files.Files``. ``stall``: see ``BytePipe``."""

    def __init__(self, services: Services, mounts: WebMounts, *, stall: float = STALL) -> None:
        self._services = services
        self._mounts = mounts
        self._stall = stall
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()
        self._links: dict[bytes, _Link] = {}

    @property
    def running(self) -> int:
        """How many go on now."""
        with self._lock:
            return self._running.total()

    def download(self, caller: Caller, request: DownloadRequest, span: Span | None = None) -> Download:
        """See the port."""
        wanted = [each.wanted for each in request.paths]
        point, called = point_in_reach(self._services, caller, request.point)
        names = [text_of(path) for path in wanted]
        audit(self._services, "download", point, who=caller.who, paths=names, format=request.format.value)
        with ExitStack() as held:
            held.enter_context(self._slot(caller))
            session = held.enter_context(self._mounts.use(caller, point, request.session))
            entries = [session.entry(path) for path in wanted]
            pipe = BytePipe(stall=self._stall)
            if request.format is Format.RAW:
                made, produce = _raw(session, point, wanted[0], entries[0], span=span, pipe=pipe)
            else:
                over = _over(pipe, self._services)
                made, produce = _archive(session, point, called, wanted, request=request, pipe=pipe, over=over)
            owned = held.pop_all()
        threading.Thread(target=_run, args=(produce, pipe, owned), name="download", daemon=True).start()
        return made

    def offer(self, caller: Caller, request: DownloadRequest) -> DownloadLink:
        """See the port. What would make the download fail at once is said now, when somebody can read it."""
        wanted = [each.wanted for each in request.paths]
        point, called = point_in_reach(self._services, caller, request.point)
        names = [text_of(path) for path in wanted]
        audit(self._services, "offer-download", point, who=caller.who, paths=names, format=request.format.value)
        with self._mounts.use(caller, point, request.session) as session:
            entries = [session.entry(path) for path in wanted]
        if request.format is Format.RAW:
            _regular(wanted[0], entries[0])
        token = secrets.token_urlsafe(32)
        now = time.monotonic()
        with self._lock:
            self._links = {key: link for key, link in self._links.items() if link.until > now}
            if len(self._links) >= MOST_LINKS:
                raise TooMany("links to downloads", after=LINK_SECONDS)
            self._links[_digest(token)] = _Link(caller.name, request, now + LINK_SECONDS)
        until = self._services.clock.now() + timedelta(seconds=LINK_SECONDS)
        return DownloadLink(url=PATH + token, expires_at=until, name=_name(point, called, wanted, request.format))

    def redeem(self, caller: Caller, token: str) -> Download:
        """See the port. Somebody else's attempt does not use the link up."""
        key = _digest(token)
        with self._lock:
            link = self._links.get(key)
            if link is None or link.owner != caller.name or link.until <= time.monotonic():
                raise NotFound("download link", "that was asked for: each is good once, for a minute")
            del self._links[key]
        return self.download(caller, link.request)

    @contextmanager
    def _slot(self, caller: Caller) -> Iterator[None]:
        with self._lock:
            if self._running.total() >= MOST or self._running[caller.name] >= MOST_OF_ONE:
                raise TooMany("downloads at once", after=10.0)
            self._running[caller.name] += 1
        try:
            yield
        finally:
            with self._lock:
                self._running[caller.name] -= 1
                self._running += Counter()  # forgets callers without any


@dataclass(frozen=True, slots=True)
class _Text:
    """An ``Item`` of our own in an archive."""

    entry: FileEntry
    content: bytes

    def pieces(self) -> Iterator[bytes]:
        yield self.content

    def xattrs(self) -> Mapping[bytes, bytes]:
        return {}


def _run(produce: Callable[[], None], pipe: BytePipe, held: ExitStack) -> None:
    """The thread of one download."""
    error: BaseException | None = None
    try:
        with held:
            produce()
    except TargetFailed as failed:
        _LOG.info("a download was given up: %s", failed.message)
        error = failed
    except LanfreeError as failed:
        if not pipe.closed:
            _LOG.warning("a download broke off: %s", failed.message)
        error = failed
    except OSError as failed:  # the pipe's own, of a file that is sent as it is
        _LOG.info("a download was given up: %s", failed.strerror)
        error = failed
    except Exception as failed:  # noqa: BLE001  # a thread of its own: nobody else would tell
        _LOG.exception("a download broke off")
        error = failed
    pipe.end(error)


def _regular(path: bytes, entry: FileEntry) -> None:
    if entry.type is not FileType.FILE:
        raise GuestFileNotFound(text_of(path), f"is a {entry.type}: only regular files can be sent raw")


def _raw(
    session: MountSession, point: RestorePoint, path: bytes, entry: FileEntry, *, span: Span | None, pipe: BytePipe
) -> tuple[Download, Callable[[], None]]:
    _regular(path, entry)
    # A restore point never changes: the same path in it is the same file.
    told = f"{point.id}\0{entry.size}\0{entry.mtime_ns}\0".encode() + path
    etag = hashlib.blake2b(told, digest_size=16).hexdigest()
    start, length = _part(span, etag, entry.size)
    made = Download(
        name=text_of(path.rsplit(b"/", 1)[-1]),
        media_type=_MEDIA[Format.RAW],
        pieces=pipe,
        size=entry.size,
        start=start,
        length=length,
        etag=etag,
    )
    return made, partial(_send, session, path, start, length, pipe)


def _part(span: Span | None, etag: str, size: int) -> tuple[int, int]:
    """Start and length of what is sent. Raises ``RangeRefused``."""
    if span is None or span.if_etag not in (None, etag):
        return 0, size
    start, end = span.start, span.end
    if start is None:
        start, end = max(0, size - (end or 0)), None
    end = size - 1 if end is None else min(end, size - 1)
    if start >= size or end < start:
        raise RangeRefused(size)
    return start, end - start + 1


def _send(session: MountSession, path: bytes, start: int, length: int, pipe: BytePipe) -> None:
    left = length
    for piece in session.read(path, start) if length else ():
        part = piece[:left]
        pipe.write(part)
        left -= len(part)
        if not left:
            break
    if left:
        raise MountFailed(shown(path), f"{length - left} bytes could be read of {length}")
    pipe.flush()


def _archive(
    session: MountSession,
    point: RestorePoint,
    called: str,
    wanted: Sequence[bytes],
    *,
    request: DownloadRequest,
    pipe: BytePipe,
    over: Callable[[], bool],
) -> tuple[Download, Callable[[], None]]:
    full = request.full_paths
    if not full:
        try:
            chosen_of(wanted, session.volumes(), full=False)
        except RestoreRefused:  # names that are the same in two folders
            full = True
    chosen_of(wanted, session.volumes(), full=full)

    def produce() -> None:
        stream = ZstdSink(pipe, "the download") if request.format is Format.TAR_ZST else PlainSink(pipe, "the download")
        with ZipTarget(stream) if request.format is Format.ZIP else TarTarget(stream) as target:
            restore_files(
                session,
                wanted,
                target,
                options=Options(full_paths=full),
                cancelled=over,
                ending=partial(_report, target, point, called),
            )

    name = _name(point, called, wanted, request.format)
    return Download(name=name, media_type=_MEDIA[request.format], pieces=pipe), produce


def _over(pipe: BytePipe, services: Services) -> Callable[[], bool]:
    """Whether nobody takes more of it, or this process is to end."""
    return lambda: pipe.closed or services.cancelled.is_set()


def _name(point: RestorePoint, called: str, wanted: Sequence[bytes], kind: Format) -> str:
    """Of the file that a browser makes of it."""
    last = text_of(wanted[0].rsplit(b"/", 1)[-1]).rstrip(":") if len(wanted) == 1 else ""
    if kind is Format.RAW:
        return last
    return f"{last or f'{called}-{point.created_at:%Y-%m-%d-%H%M}'}.{kind.value}"


def _report(target: FileTarget, point: RestorePoint, called: str, report: RestoreReport) -> None:
    """The archive's last member: what is in it and what is not."""
    done = f"{sum(report.entries.values())} entries, {report.content} bytes in files"
    lines = [f"Files of {called}, restore point {point.id}, taken {point.created_at:%Y-%m-%d %H:%M:%S} UTC.", done]
    if report.failed:
        lines.append(f"NOT COMPLETE: {report.failed} entries could not be read:")
        lines += [f"  {problem}" for problem in report.problems]
        more = report.failed - len(report.problems)
        lines += [f"  and {more} more"] if more else []
    else:
        lines.append("Complete: everything that was asked for is in this archive.")
    lines += [f"Not kept: {loss.what}: {loss.count} entries, such as {shown(loss.example)}" for loss in report.losses]
    content = "\n".join([*lines, ""]).encode()
    name = b"LANFREE-REPORT-" + point.id.encode() + b".txt"
    now = time.time_ns()
    entry = FileEntry(b"/" + name, FileType.FILE, len(content), 0o644, 0, 0, now, now, 0)
    target.file(name, _Text(entry, content))


def _digest(token: str) -> bytes:
    """Links are looked up by what they were made into: comparing takes the same time for every wrong one."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()
