"""What both clients make of what a server said: values, refusals, events. No input or output."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from proxy.errors import ServerAway, ServerRefused

T = TypeVar("T")

LONGEST_EVENT = 4 * 1024 * 1024
"""Characters of one event: states of runs have a few thousand; what has more is none of ours."""


@dataclass(frozen=True, slots=True)
class Event:
    """``name``: ``state`` or what the stream calls it, ``end``, ``problem``. ``data``: JSON."""

    name: str
    data: str
    id: str

    def value(self, type_: type[T]) -> T:
        """The data as this type."""
        return TypeAdapter(type_).validate_json(self.data)


def query(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters without those that say nothing."""
    return {name.rstrip("_"): _plain(value) for name, value in values.items() if value is not None and value != ""}


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    return value.isoformat() if hasattr(value, "isoformat") else value


def content(body: Any) -> Any:
    """A body as JSON: models by their own rules, all else as it is."""
    if isinstance(body, BaseModel):
        return body.model_dump(mode="json", exclude_unset=True)
    return body


def parsed(type_: type[T], answer: httpx.Response) -> T:
    """The answer as this type. Raises ``ServerRefused`` for what no version of our API says."""
    if answer.status_code == 204 and type_ is type(None):
        return None
    try:
        return TypeAdapter(type_).validate_json(answer.content)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ServerRefused(
            answer.status_code,
            "not-understood",
            f"the answer to {answer.request.url.path} is not understood: {where}: {first['msg']}",
            hint="is the server of a newer version?",
        ) from None


def refusal(answer: httpx.Response) -> ServerRefused:
    """What a problem document said; its body must have been read."""
    try:
        said = answer.json()
    except ValueError:
        said = {}
    if not isinstance(said, dict):
        said = {}
    fields = [
        (str(one.get("pointer", "")), str(one.get("detail", "")))
        for one in said.get("errors") or ()
        if isinstance(one, dict)
    ]
    plain = f"{answer.status_code} {answer.reason_phrase}".strip()
    return ServerRefused(
        answer.status_code,
        str(said.get("code", "unknown")),
        str(said.get("detail") or plain),
        hint=str(said.get("hint", "")),
        fields=fields,
    )


def away(url: str, error: httpx.HTTPError) -> ServerAway:
    """What went wrong on the way."""
    if isinstance(error, httpx.TimeoutException):
        return ServerAway(place(url), "no answer in time")
    words = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in words:
        return ServerAway(
            place(url), "its certificate is not trusted", hint="name its authority (ca.pem of the appliance)"
        )
    return ServerAway(place(url), words)


def place(url: str) -> str:
    """Without anything secret that may be in it."""
    parts = urlsplit(url)
    return f"{parts.hostname or url}:{parts.port}" if parts.port else parts.hostname or url


class EventLines:
    """Makes events of lines as they come. ``last``: id of the newest, to go on after it."""

    def __init__(self) -> None:
        self.last = ""
        self._name = ""
        self._data: list[str] = []
        self._size = 0

    def line(self, text: str) -> Iterator[Event]:
        """The event that this line completes, if it does."""
        if not text:
            if self._data:
                yield Event(self._name or "message", "\n".join(self._data), self.last)
            self._name, self._data, self._size = "", [], 0
            return
        field, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._size += len(value)
            if self._size <= LONGEST_EVENT:
                self._data.append(value)
        elif field == "event":
            self._name = value
        elif field == "id":
            self.last = value
