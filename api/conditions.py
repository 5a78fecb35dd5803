"""``ETag`` and ``If-Match`` of what is changed by revision: nobody undoes a change that they have not seen (RFC 9110,
13.1.1)."""

import re
from typing import Annotated

from fastapi import Header

from api.refusals import ConditionMissing, Outdated

IfMatch = Annotated[
    str | None, Header(alias="If-Match", max_length=200, description="The `ETag` of what is to be changed.")
]

_VERSION = re.compile(r'"([^"]+)"')
_REVISION = re.compile(r"[0-9]{1,18}")


def etag(version: int | str) -> str:
    """As a header has it."""
    return f'"{version}"'


def version_of(said: str | None, what: str) -> str:
    """The version that a caller wants to change. ``what``: for people. Raises ``ConditionMissing`` without one, ``Outdated``
    for what is none: ``*`` is refused too, it would say that it does not matter what is undone."""
    if said is None:
        raise ConditionMissing(what)
    found = _VERSION.fullmatch(said.strip())
    if found is None:
        raise Outdated(what)
    return found[1]


def revision_of(said: str | None, what: str) -> int:
    """The same of what counts its versions. Raises as ``version_of``."""
    version = version_of(said, what)
    if not _REVISION.fullmatch(version):
        raise Outdated(what)
    return int(version)
