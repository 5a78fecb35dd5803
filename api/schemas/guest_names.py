"""Names of guests' files on the wire.

They are bytes of the guest. ``path`` is for people: UTF-8, and what is not, or does not print, as ``%XX``. ``path_id`` is the
exact name (base64url of the bytes) and leads back to it, whatever it holds. Who asks may use either: a ``path`` that is asked
for is taken as UTF-8, letter by letter, without any escapes.
"""

import base64
import binascii
import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field

from proxy.errors import ConfigurationError, GuestFileNotFound

LONGEST = 32_768
"""Characters of a path: what Windows allows. A guest's Linux ends at 4096 bytes."""

PathText = Annotated[str, Field(max_length=LONGEST, pattern=r"^[^\x00]*$", description="As the guest names it.")]
PathId = Annotated[
    str,
    Field(
        max_length=4 * LONGEST,
        pattern=r"^([A-Za-z0-9_-]{4})*([A-Za-z0-9_-]{2,3})?$",
        description="The exact name, instead of the path.",
    ),
]

_DRIVE = re.compile(r"[A-Za-z]:(\\|$)")


def text_of(path: bytes) -> str:
    """A name for people: what is not UTF-8 or does not print becomes ``%XX`` (of its bytes). Not reversible."""
    text = path.decode(errors="surrogateescape")
    return "".join(map(_printed, text))


def _printed(character: str) -> str:
    if character.isprintable():
        return character
    return "".join(f"%{byte:02X}" for byte in character.encode(errors="surrogateescape"))


def id_of(path: bytes) -> str:
    """The exact name for the way there and back."""
    return base64.urlsafe_b64encode(path).decode().rstrip("=")


def bytes_of(path_id: str) -> bytes:
    """The name that an id stands for, whatever it is. Raises ``ConfigurationError`` for what is no id."""
    try:
        return base64.urlsafe_b64decode(path_id + "=" * (-len(path_id) % 4))
    except (ValueError, binascii.Error):
        raise ConfigurationError("path_id", "not one that was given", hint="take it as it is") from None


def guest_path(path: str | None, path_id: str | None = None) -> bytes:
    """What was asked for, as bytes: ``path_id`` where it is given, else ``path``; the root without either.

    A guest's directory never holds ``.`` or ``..``, and no name holds a NUL: such paths are not found, rather than looked
    up. ``C:\\Users`` is taken as ``C:/Users``. Raises ``ConfigurationError`` for an id that is none, ``GuestFileNotFound``.
    """
    if path_id:
        wanted = bytes_of(path_id)
    else:
        text = path or "/"
        if _DRIVE.match(text):
            text = text.replace("\\", "/")
        try:
            wanted = text.encode()
        except UnicodeEncodeError:  # half of a pair, which no UTF-8 has
            raise GuestFileNotFound(repr(path), "no name of a file") from None
    if b"\0" in wanted or any(part in (b".", b"..") for part in wanted.split(b"/")):
        raise GuestFileNotFound(text_of(wanted), "no name of a file")
    return wanted.rstrip(b"/") or b"/"


def moment_of(nanoseconds: int) -> datetime | None:
    """A guest's time; ``None`` for one that no calendar here has."""
    try:
        return datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC).replace(
            microsecond=nanoseconds % 1_000_000_000 // 1000
        )
    except (OverflowError, ValueError, OSError):
        return None
