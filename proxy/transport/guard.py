"""What every source and target does before it touches its device: check the range, say that it is closed."""

from proxy.errors import ReadFailed, WriteFailed
from proxy.units import KiB

_ZEROES = memoryview(bytes(256 * KiB))


def check_read(identity: str, size: int, offset: int, length: int, *, closed: bool = False) -> None:
    """Raises ``ReadFailed`` unless ``[offset, offset + length)`` lies within ``[0, size)`` of an open source."""
    if closed:
        raise ReadFailed(identity, offset, length, "it is closed")
    if offset < 0 or length < 0 or offset + length > size:
        raise ReadFailed(identity, offset, length, f"the range leaves the {size} bytes that it has")


def check_write(identity: str, size: int, offset: int, length: int, *, closed: bool = False) -> None:
    """Raises ``WriteFailed`` unless ``[offset, offset + length)`` lies within ``[0, size)`` of an open target."""
    if closed:
        raise WriteFailed(identity, offset, length, "it is closed")
    if offset < 0 or length < 0 or offset + length > size:
        raise WriteFailed(identity, offset, length, f"the range leaves the {size} bytes that it has")


def fill_zero(buffer: memoryview) -> None:
    """Sets every byte to zero without allocating as much again."""
    for at in range(0, len(buffer), len(_ZEROES)):
        piece = buffer[at : at + len(_ZEROES)]
        piece[:] = _ZEROES[: len(piece)]
