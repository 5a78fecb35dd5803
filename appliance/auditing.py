"""Who looks into restore points, and what leaves them: recorded before it is done."""

import getpass
import os
import socket
from collections.abc import Mapping
from types import MappingProxyType

from appliance.wiring import Services
from proxy.model import RestorePoint

_NOTHING: Mapping[str, object] = MappingProxyType({})

# Guest paths in one entry. Who takes ten thousand files took a directory; the rest is a number.
PATHS = 100


def audit(services: Services, action: str, point: RestorePoint | None = None, **detail: object) -> None:
    """Record an access. Raises ``AuditFailed``: what cannot be recorded is not done.

    ``action``: ``browse``, ``search``, ``restore-files``, ``restore-machine``, ``export``, ``mount``, ``push``, ``unlock``.
    ``detail``: what JSON can hold; of long lists the beginning is kept, and how long they were.
    """
    kept: dict[str, object] = {}
    for name, value in detail.items():
        if isinstance(value, list | tuple) and len(value) > PATHS:
            kept[name], kept[f"{name}_count"] = [*value[:PATHS]], len(value)
        else:
            kept[name] = value
    services.catalog.audit.record(
        caller(), action, point.machine if point else None, point.id if point else None, kept or _NOTHING
    )


def caller() -> str:
    """The person at this command line, as far as the system tells: ``alice@proxy1``, ``alice as root@proxy1`` with sudo."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        user = f"uid {os.getuid()}"
    by = os.environ.get("SUDO_USER", "")
    return f"{by} as {user}@{socket.gethostname()}" if by and by != user else f"{user}@{socket.gethostname()}"
