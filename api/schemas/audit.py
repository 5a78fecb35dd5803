"""The access log on the wire."""

from datetime import datetime
from typing import Any

from pydantic import Field

from api.schemas.common import Answer


class AuditEntry(Answer):
    """Who did what. ``number``: from 1, without gaps. ``before``, ``digest``: of the chain, hexadecimal."""

    number: int = Field(ge=1)
    at: datetime
    who: str
    action: str
    machine: str | None = Field(None, description="Identity of the machine that it concerned.")
    restore_point: str | None = None
    detail: dict[str, Any]
    before: str
    digest: str


class AuditFault(Answer):
    """What is wrong with the chain, from which entry on."""

    number: int
    why: str


class AuditCheck(Answer):
    """Whether nothing was changed or taken out. ``entries``, ``head``: number and digest of the newest: kept elsewhere, they
    show later that everything up to there is as it was."""

    good: bool
    entries: int
    head: str
    faults: list[AuditFault]
