"""Who looks into restore points, and what leaves them: recorded before it is done."""

import os
import pwd
import socket
import syslog
from collections.abc import Mapping
from types import MappingProxyType

from appliance.wiring import Services
from proxy.model import MachineId, RestorePoint

_NOTHING: Mapping[str, object] = MappingProxyType({})

# Guest paths in one entry. Who takes ten thousand files took a directory; the rest is a number.
PATHS = 100


def audit(
    services: Services,
    action: str,
    point: RestorePoint | None = None,
    *,
    who: str | None = None,
    about: MachineId | None = None,
    **detail: object,
) -> None:
    """Record an access. Raises ``AuditFailed``: what cannot be recorded is not done.

    ``who``: the caller of the API; without, whoever runs this command. ``about``: the machine, where there is no ``point``.

    ``action``: ``browse``, ``search``, ``restore-files``, ``restore-machine``, ``export``, ``mount``, ``push``, ``unlock``.
    ``detail``: what JSON can hold; of long lists the beginning is kept, and how long they were.
    """
    kept: dict[str, object] = {}
    for name, value in detail.items():
        if isinstance(value, list | tuple) and len(value) > PATHS:
            kept[name], kept[f"{name}_count"] = [*value[:PATHS]], len(value)
        else:
            kept[name] = value
    who = who or caller()
    machine = point.machine if point else about
    entry = services.catalog.audit.record(who, action, machine, point.id if point else None, kept or _NOTHING)
    # Outside of the database, so that a chain that was made anew does not fit; the system sends it on where it is set up to.
    syslog.syslog(
        syslog.LOG_AUTHPRIV | syslog.LOG_INFO, f"lanfree access {entry.number}: {who} {action}, {entry.digest}"
    )


def caller() -> str:
    """The user of this command line: ``alice@proxy1``; ``alice as root@proxy1`` where sudo says so, which root can make up."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a user without a name, as in containers
        user = f"uid {os.getuid()}"
    by = os.environ.get("SUDO_USER", "")
    return f"{by} as {user}@{socket.gethostname()}" if by and by != user else f"{user}@{socket.gethostname()}"
