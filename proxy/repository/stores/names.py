"""Which object names there are: short words of safe characters between slashes; and which objects a store retains."""

import re
from datetime import timedelta

from proxy.errors import FormatError
from proxy.units import MiB

# No dot at the beginning of a word: "..", hidden files and temporary files can never be named.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
LONGEST = 200


def check_name(name: str) -> str:
    """The name itself, or ``FormatError``: an object name can never lead out of its repository."""
    if len(name) > LONGEST or _NAME.fullmatch(name) is None:
        raise FormatError("object name", repr(name[:LONGEST]))
    return name


LARGEST = 544 * MiB
"""Bytes of the largest object that is read as a whole: a pack of the largest size that may be chosen, with its footer. Storage
is not trusted: a configuration of a hundred gigabytes must not take all memory."""


def check_size(name: str, size: int) -> None:
    """Raises ``FormatError`` for an object that is larger than any that is read as a whole."""
    if size > LARGEST:
        raise FormatError(name, f"has {size} bytes: no object of ours that is read as a whole is so large")


# Beginnings of the names without which no restore point can be read. Leases, dooms and states come and go; the record of
# a deletion keeps nothing alive. Key slots are left out on purpose: a lost passphrase must be revocable at once, and a
# copy of the key belongs outside of the repository anyway.
_RETAINED = ("packs/", "indexes/", "points/")

# A retention that a wrong clock made cannot be taken back in most stores. Ten years is beyond any legal minimum that is
# kept on disks; shorter would refuse real policies.
LONGEST_RETENTION = timedelta(days=3653)


def is_retained(name: str) -> bool:
    """Whether a store that was made with ``retain_for`` retains this object from the moment it is put."""
    return name == "config" or name.startswith(_RETAINED)
