"""What opens encrypted volumes: passphrases, contents of key files, BitLocker recovery keys.

A key goes from its owner to the worker's socket and into the appliance's memory, never into an argument list, an
environment, a file, a log or an error message. Its ``repr`` does not show it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from proxy.errors import FormatError
from proxy.units import KiB

# Key files have some KiB. One with NUL bytes is a word of a command in the appliance, and a word has 128 KiB there at most.
LARGEST = 64 * KiB

# 8 groups of 6 digits, each a multiple of 11 below 65536 * 11: how Windows prints recovery keys.
_RECOVERY = re.compile(rb"\s*(\d{6})" + rb"[-\s]?(\d{6})" * 7 + rb"\s*")


@dataclass(frozen=True, slots=True)
class Key:
    """``volume``: the encrypted volume's device in the session (``/dev/sda3``), its UUID, or empty: to be tried everywhere.
    ``secret``: a passphrase, or the whole content of a key file."""

    volume: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not 0 < len(self.secret) <= LARGEST:
            raise FormatError("key", f"it has {len(self.secret)} bytes")

    def fits(self, *names: str) -> bool:
        """Whether it is meant for the volume that has these names (device, UUID)."""
        return not self.volume or self.volume.lower() in {name.lower() for name in names if name}

    def forms(self) -> Sequence[bytes]:
        """Bytes to try, likeliest first: as a recovery key in the one spelling that BitLocker knows; as given; without the
        line end that editors put behind a passphrase."""
        recovery = _RECOVERY.fullmatch(self.secret)
        spelled = [b"-".join(recovery.groups())] if recovery else []
        return list(dict.fromkeys([*spelled, self.secret, self.secret.rstrip(b"\r\n") or self.secret]))


def for_volume(keys: Iterable[Key], *names: str) -> list[Key]:
    """Keys to try for the volume with these names: those that are meant for it come first."""
    return sorted((key for key in keys if key.fits(*names)), key=lambda key: not key.volume)
