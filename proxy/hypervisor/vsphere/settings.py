"""What is configured of a vCenter (or of a single ESXi host, which speaks the same)."""

import re
from dataclasses import dataclass
from pathlib import Path

from proxy.errors import ConfigurationError

HTTPS_PORT = 443


@dataclass(frozen=True, slots=True)
class VsphereSettings:
    """One vCenter.

    ``password_file``: its first line is the password; nobody but its owner may read it (0600). It is read at each login, so
    that a new password needs no restart. ``thumbprint``: SHA-256 of the server's certificate, with or without colons;
    ``ca_bundle``: PEM file of the authorities that may have signed it. One of them is needed; with both, both must hold.

    Seconds:

    ``call_timeout``        one call without an answer; a change map of a large disk was reported to take minutes
    ``restart_patience``    a vCenter that answered before may be away for so long (an appliance needs 5 to 10 minutes to
                            start again); only what can be asked twice waits, all else fails at once
    ``keep_alive``          between signs of life while disks are read; vCenter ends a session after 30 idle minutes
    ``quiesce_timeout``     VMware Tools give up a quiesced snapshot after 15 minutes, so waiting longer gains nothing
    ``snapshot_timeout``    making a snapshot, without the quiescing
    ``consolidate_timeout`` removing one: as long as it takes to copy what the guest wrote meanwhile

    ``snapshots_per_datastore``: ours at once; every one makes its datastore serve a second stream of writes.
    """

    name: str
    host: str
    user: str
    password_file: Path
    port: int = HTTPS_PORT
    thumbprint: str = ""
    ca_bundle: Path | None = None
    call_timeout: float = 300.0
    restart_patience: float = 900.0
    keep_alive: float = 300.0
    quiesce_timeout: float = 900.0
    snapshot_timeout: float = 600.0
    consolidate_timeout: float = 6 * 3600.0
    snapshots_per_datastore: int = 4

    def __post_init__(self) -> None:
        where = f"vsphere {self.name}"
        if not self.thumbprint and self.ca_bundle is None:
            raise ConfigurationError(
                where,
                "neither thumbprint nor ca_bundle is set, so nobody could tell this vCenter from another",
                hint="set ca_bundle, or thumbprint to the SHA-256 that vCenter's own console shows for its certificate",
            )
        if self.thumbprint and len(plain_thumbprint(self.thumbprint)) != 64:
            raise ConfigurationError(
                where,
                "thumbprint is not a SHA-256: 64 hexadecimal digits are needed",
                hint="a SHA-1 thumbprint (40 digits) can be forged and is not taken",
            )


def plain_thumbprint(text: str) -> str:
    """Lower case without colons, spaces and a leading ``sha256``; an empty string when it is not hexadecimal."""
    found = re.sub(r"^sha-?256[:=]?", "", text.strip().lower())
    found = re.sub(r"[\s:]", "", found)
    return found if re.fullmatch(r"[0-9a-f]*", found) else ""
