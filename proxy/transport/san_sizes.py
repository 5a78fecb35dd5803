"""How large the units of a target are, for whoever chooses one: one login, and no longer than people wait for a list."""

import time
from collections.abc import Iterable

from proxy.errors import FormatError, TransportError
from proxy.transport.iscsi import Limits, Paths, ReadSession
from proxy.transport.iscsi.scsi import CAPACITY16, parse_capacity, read_capacity
from proxy.transport.iscsi.session import Command
from proxy.transport.san import SanTarget

PATIENT = Limits(timeout=2, login_timeout=3.0)
"""A target that answers does it within milliseconds; a list of sizes is not worth waiting for one that does not."""


def unit_sizes(
    target: SanTarget, numbers: Iterable[int], *, seconds: float, limits: Limits = PATIENT
) -> dict[int, int]:
    """LUN -> bytes, of those that told it within so many ``seconds``. Raises ``LoginFailed`` and its kin."""
    login, end = target.login(), time.monotonic() + seconds
    paths = Paths(target.iqn, target.portals, lambda portal: ReadSession(portal, login, limits))
    found: dict[int, int] = {}
    try:
        session = paths.session()
        for number in numbers:
            if time.monotonic() >= end:
                break
            try:
                size = _size(session, number)
            except FormatError:
                continue  # what it says of itself is no size
            except TransportError:
                break  # the session is gone, and a new one is not worth it
            if size is not None:
                found[number] = size
    finally:
        paths.close()
    return found


def _size(session: ReadSession, number: int) -> int | None:
    for _ in range(2):  # a unit may report its power-on first
        data = bytearray(CAPACITY16.size)
        outcome = session.execute(number, [Command(read_capacity(), data_in=memoryview(data))])[0]
        if outcome.good:
            return parse_capacity(bytes(data[: len(data) - outcome.residual])).size
    return None
