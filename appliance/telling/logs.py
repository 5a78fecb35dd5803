"""Structured logs: one JSON object a line, with the run, job, machine and proxy that it is about.

::

    {"ts": "2026-11-23T03:12:44.120Z", "level": "info", "event": "task-done", "message": "web-01: 1.2 GiB read",
     "run": "b20261123031100-1f2e", "job": "nightly", "machine": "web-01", "proxy": "proxy1-4711-…"}

``with bound(run=…, machine=…):`` says what all lines below it are about, in this thread or task and in what it starts with a
copy of its context. A line's own ``extra={"event": …, "run": …}`` goes before that.
"""

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import IO

from appliance.telling.settings import Log
from proxy.command import MASK

KEYS = ("job", "job_run", "run", "task", "machine", "host", "proxy", "hint")
"""What a line may be about, in the order in which it is written."""

# Longer messages are programs' output; journald cuts lines of 48 KiB in pieces that are no JSON any more.
LONGEST = 16_000

_NOTHING: Mapping[str, str] = MappingProxyType({})
_about: ContextVar[Mapping[str, str]] = ContextVar("about", default=_NOTHING)

# Errors and requests name addresses; what stands before the @ in one is a user and a password.
_USER = re.compile(r"(?<=://)[^/\s@]+(?=@)")
_HEADER = re.compile(
    r"(?i)\b(authorization|x-amz-security-token|cookie)(['\"]?\s*[:=]\s*['\"]?)(?:bearer |basic )?[^\s'\",]+"
)

# Libraries that write requests and statements at DEBUG and INFO, credentials and names of machines among them.
_LOUD = (
    *("botocore", "boto3", "urllib3", "requests", "sqlalchemy", "alembic", "dbos", "asyncio", "markdown"),
    *("httpx", "httpcore", "uvicorn", "nicegui", "engineio", "socketio"),
)


@contextmanager
def bound(**about: str) -> Iterator[None]:
    """All lines in the block are about these (``KEYS``); inner blocks add to outer ones."""
    token = _about.set({**_about.get(), **about})
    try:
        yield
    finally:
        _about.reset(token)


def set_up(section: Log, stream: IO[str] | None = None) -> logging.Handler:
    """Make this the log of the process (stderr, if no stream is given), in place of what was."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.addFilter(_attach)
    handler.setFormatter(JsonLines() if section.format == "json" else _Plain())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(section.level.upper())
    for name in _LOUD:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    return handler


def _attach(record: logging.LogRecord) -> bool:
    """Where it is logged, not where it is written: another thread may do that."""
    about = _about.get()
    for key in KEYS:
        if not getattr(record, key, ""):
            setattr(record, key, about.get(key, ""))
    return True


class JsonLines(logging.Formatter):
    """One object a line; always valid, whatever a message holds."""

    def format(self, record: logging.LogRecord) -> str:
        """See the module's drawing; ``error`` is the trace of an exception, ``logger`` who wrote it."""
        facts: dict[str, str] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": str(getattr(record, "event", "")),
            "message": _without_secrets(record.getMessage())[:LONGEST],
        }
        facts |= {key: str(getattr(record, key, "")) for key in KEYS if getattr(record, key, "")}
        facts["logger"] = record.name
        if record.exc_info:
            facts["error"] = _without_secrets(self.formatException(record.exc_info))[-LONGEST:]
        return json.dumps({key: value for key, value in facts.items() if value})


class _Plain(logging.Formatter):
    """For people: moment, level, what it is about, message."""

    def format(self, record: logging.LogRecord) -> str:
        about = " ".join(f"{key}={value}" for key in KEYS if (value := getattr(record, key, "")))
        words = [self.formatTime(record), record.levelname.lower(), about, record.getMessage()]
        lines = [" ".join(word for word in words if word)]
        if record.exc_info:
            lines.append(self.formatException(record.exc_info))
        # A message may hold line ends that a stranger put there: a line of ours begins where ours begins.
        return _without_secrets("\n".join(lines)).replace("\n", "\n    ")


def _without_secrets(text: str) -> str:
    """Nobody of ours logs one; libraries' errors may quote an address."""
    return _HEADER.sub(rf"\1\2{MASK}", _USER.sub(MASK, text))
