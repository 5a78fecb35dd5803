"""Damage that is one for certain: a byte that is written over with another may be what it was, once in 256 runs."""

from proxy.repository import MemoryStore


def flipped(data: bytes, place: int = -1, bits: int = 0x01) -> bytes:
    """The same with bits of one byte changed; ``place`` from the end if it is negative."""
    changed = bytearray(data)
    changed[place] ^= bits
    return bytes(changed)


def flip(store: MemoryStore, name: str, place: int = 100, bits: int = 0x01) -> None:
    """Change an object in the store."""
    store.objects[name] = flipped(store.objects[name], place, bits)
