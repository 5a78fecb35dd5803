"""Tags of machines, over vCenter's REST interface: they are not part of the API that pyVmomi speaks.

vSphere Automation API, "cis.tagging". Two spellings of it exist: ``/rest/com/vmware/cis/…`` (6.5 to 8.0) and ``/api/cis/…``
(from 7.0 U2 on); the older is tried first because every supported release has it, the newer where it is gone.
"""

import base64
import http.client
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from proxy.hypervisor.vsphere.connection import Vcenter, read_password
from proxy.hypervisor.vsphere.faults import Refusal, Refused
from proxy.hypervisor.vsphere.tls import PinnedConnection

# Objects asked about in one call: the interface takes at most 2,000; 500 keep an answer below a MiB.
BATCH = 500

# Bytes of one answer.
ANSWER_LIMIT = 64 * 1024 * 1024

TIMEOUT = 60.0

SESSION_HEADER = "vmware-api-session-id"


@dataclass(frozen=True, slots=True, order=True)
class Tag:
    """A tag, by names: ids differ between vCenters. Written ``category:name``."""

    category: str
    name: str

    def __str__(self) -> str:
        return f"{self.category}:{self.name}"


@dataclass(frozen=True, slots=True)
class _Dialect:
    session: str
    tagging: str
    action: str
    prefix: str
    wrapped: bool

    def value(self, answer: Any) -> Any:
        return answer.get("value") if self.wrapped and isinstance(answer, dict) else answer


_DIALECTS = (
    _Dialect("/rest/com/vmware/cis/session", "/rest/com/vmware/cis/tagging", "~action", "id:", wrapped=True),
    _Dialect("/api/session", "/api/cis/tagging", "action", "", wrapped=False),
)


class TagService:
    """A session with the tagging service. A context manager; one thread at a time. Raises ``Refused``."""

    def __init__(self, vcenter: Vcenter) -> None:
        self._vcenter = vcenter
        self._connection: PinnedConnection | None = None
        self._session = ""
        self._dialect = _DIALECTS[0]
        self._names: dict[str, Tag] = {}
        self._categories: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._vcenter.now()  # waits for a restarting vCenter, and says what is wrong with name, certificate or password
        for dialect in _DIALECTS:
            self._dialect = dialect
            status, answer = self._exchange("POST", dialect.session, None, self._credentials())
            if status in {200, 201}:
                self._session = str(dialect.value(answer))
                return self
            if status != 404:
                break
        self.close()
        raise Refused("open a session for tags", f"HTTP {status}", _refusal(status))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session; closing twice is allowed."""
        connection, session = self._connection, self._session
        try:
            if connection is not None and session:
                self._exchange("DELETE", self._dialect.session, None, {SESSION_HEADER: session})
        except Refused:
            pass  # it ends by itself after a few idle minutes
        finally:
            self._session, self._connection = "", None
            if connection is not None:
                connection.close()

    def attached(self, kind: str, ids: Sequence[str]) -> dict[str, tuple[Tag, ...]]:
        """Managed object id -> its tags, sorted; objects without tags are left out. ``kind``: ``VirtualMachine``."""
        found: dict[str, tuple[Tag, ...]] = {}
        with _understood("read tags"):
            for start in range(0, len(ids), BATCH):
                asked = [{"id": i, "type": kind} for i in ids[start : start + BATCH]]
                answer = self._call("POST", "/tag-association", {"object_ids": asked}, "list-attached-tags-on-objects")
                for one in answer or ():
                    if tags := self._tags(one["tag_ids"] or ()):
                        found[str(one["object_id"]["id"])] = tuple(sorted(tags.values()))
        return found

    def attach(self, kind: str, managed_id: str, tags: Iterable[Tag]) -> tuple[Tag, ...]:
        """Put tags on an object; those that it already has stay. Returns the ones that this vCenter does not have."""
        with _understood("read tags"):
            have = {tag: tag_id for tag_id, tag in self._tags(self._call("GET", "/tag") or ()).items()}
        missing = []
        for tag in tags:
            if tag not in have:
                missing.append(tag)
                continue
            body = {"object_id": {"id": managed_id, "type": kind}}
            self._call("POST", f"/tag-association/{self._word(have[tag])}", body, "attach")
        return tuple(missing)

    def _tags(self, ids: Iterable[Any]) -> dict[str, Tag]:
        """By id; those that somebody deleted meanwhile are left out."""
        found = {}
        for tag in map(str, ids):
            try:
                found[tag] = self._tag(tag)
            except Refused as error:
                if error.refusal is not Refusal.GONE:
                    raise
        return found

    def _tag(self, tag: str) -> Tag:
        """Name and category of a tag id, asked once."""
        if tag not in self._names:
            found = self._call("GET", f"/tag/{self._word(tag)}")
            category = str(found["category_id"])
            if category not in self._categories:
                self._categories[category] = str(self._call("GET", f"/category/{self._word(category)}")["name"])
            self._names[tag] = Tag(self._categories[category], str(found["name"]))
        return self._names[tag]

    def _call(self, method: str, path: str, body: object = None, action: str = "") -> Any:
        url = self._dialect.tagging + path + (f"?{self._dialect.action}={action}" if action else "")
        status, answer = self._exchange(method, url, body, {SESSION_HEADER: self._session})
        if status not in {200, 201, 204}:
            raise Refused(f"{method} {path} of the tagging service", f"HTTP {status}", _refusal(status))
        return self._dialect.value(answer)

    def _exchange(self, method: str, url: str, body: object, headers: Mapping[str, str]) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body)
        asked = {**headers, "Accept": "application/json", **({"Content-Type": "application/json"} if data else {})}
        try:
            if self._connection is None:
                self._connection = self._vcenter.http(TIMEOUT)
            self._connection.request(method, url, data, asked)
            answer = self._connection.getresponse()
            text = answer.read(ANSWER_LIMIT)
        except (OSError, http.client.HTTPException) as error:
            if self._connection is not None:
                self._connection.close()
            raise Refused(f"{method} {url}", str(error) or type(error).__name__, Refusal.HOST) from None
        try:
            return answer.status, json.loads(text) if text and answer.status < 300 else None
        except ValueError:
            raise Refused(f"{method} {url}", "the answer is not JSON", Refusal.UNREADABLE) from None

    def _word(self, part: str) -> str:
        return self._dialect.prefix + quote(part, safe=":")

    def _credentials(self) -> dict[str, str]:
        settings = self._vcenter.settings
        password = read_password(self._vcenter.where, settings.password_file)
        pair = base64.b64encode(f"{settings.user}:{password}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}


@contextmanager
def _understood(what: str) -> Iterator[None]:
    try:
        yield
    except (LookupError, TypeError, AttributeError) as error:
        why = f"the tagging service's answer cannot be understood ({type(error).__name__}: {error})"
        raise Refused(what, why, Refusal.UNREADABLE) from error


def _refusal(status: int) -> Refusal:
    if status == 401:
        return Refusal.LOGIN
    return {403: Refusal.NO_PERMISSION, 404: Refusal.GONE}.get(status, Refusal.OTHER)
