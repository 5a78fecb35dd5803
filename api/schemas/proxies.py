"""Proxies: who works on tasks, and over which fabrics."""

from datetime import datetime

from api.schemas.common import Answer


class Proxy(Answer):
    """``machine``: what people call it; ``name``: new at each start. ``silent_for``: seconds since its last heartbeat;
    ``paths``: fabrics that it reaches; ``closed``: where it begins nothing now, because guests wait too long there or
    something is broken."""

    name: str
    machine: str
    alive: bool
    silent_for: float
    started_at: datetime
    up_seconds: float
    version: str
    slots: int
    tasks: int
    paths: list[str]
    closed: list[str]


class Proxies(Answer):
    """``serves``: whether any is alive: without one nothing begins."""

    at: datetime
    serves: bool
    items: list[Proxy]
