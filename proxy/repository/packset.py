"""Many pack names at 16 bytes each: sorted, back to back, where a pack's rank is its number.

A Python set of 3.3 million names (100 TiB in packs of 32 MiB) takes some 330 MiB; this takes 51. What is asked of a few names
at a time needs no numpy, which is a tenth of a small backup's time; many are for ``packset_arrays.py``.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Self

from proxy.repository.format import NAME_BYTES

if TYPE_CHECKING:
    from proxy.repository.packset_arrays import Halves, Ranks

# So many names are sorted in 2 ms and looked up one by one in 14 (measured): less than the 35 to 50 that loading numpy takes.
FEW = 4096


class PackSet:
    """Immutable. Names are ``NAME_BYTES`` long; numbers count from 0 in the order of names."""

    __slots__ = ("_halves", "_table")

    def __init__(self, table: bytes) -> None:
        """Names back to back, sorted, each name once; made by ``of`` and ``parse``."""
        self._table = table
        self._halves: Halves | None = None

    @classmethod
    def of(cls, names: Iterable[bytes]) -> Self:
        """From names in any order, any number of times each."""
        return cls.parse(b"".join(names))

    @classmethod
    def parse(cls, table: bytes | memoryview) -> Self:
        """From names back to back, in any order, any number of times each. Raises ``ValueError`` for half a name."""
        if len(table) % NAME_BYTES:
            raise ValueError(f"{len(table)} bytes are not a multiple of {NAME_BYTES}")
        if len(table) > FEW * NAME_BYTES:
            from proxy.repository.packset_arrays import in_order  # noqa: PLC0415  # as it says above

            return cls(in_order(table))
        return cls(b"".join(sorted(set(split(bytes(table))))))

    def __len__(self) -> int:
        return len(self._table) // NAME_BYTES

    def __iter__(self) -> Iterator[bytes]:
        return split(self._table)

    def __contains__(self, pack: bytes) -> bool:
        number = bisect_left(range(len(self)), pack, key=self.name)
        return number < len(self) and self.name(number) == pack

    def name(self, number: int) -> bytes:
        """Of the pack with this number."""
        return self._table[number * NAME_BYTES : (number + 1) * NAME_BYTES]

    def table(self) -> bytes:
        """All names back to back, in order."""
        return self._table

    def numbers(self, table: bytes | memoryview) -> "Ranks":
        """The number of each name in a table of names back to back, -1 for those that are not in the set. Takes as much
        memory again as the set, for as long as that lives: it is asked once for each image of a repository."""
        from proxy.repository.packset_arrays import halves, numbers  # noqa: PLC0415  # as it says above

        if self._halves is None:
            self._halves = halves(self._table)
        return numbers(self._halves, table)

    def union(self, names: Iterable[bytes]) -> "PackSet":
        """With more names."""
        more = b"".join(names)
        return self if not more else PackSet.parse(self._table + more)

    def minus(self, other: "PackSet") -> list[bytes]:
        """Names that the other set does not have, in order."""
        if len(self) <= FEW:
            return [name for name in self if name not in other]
        from proxy.repository.packset_arrays import halves, numbers  # noqa: PLC0415  # as it says above

        missing = numbers(halves(other.table()), self._table) < 0
        return [self.name(number) for number in missing.nonzero()[0].tolist()]


def split(table: bytes) -> Iterator[bytes]:
    """Each name of a table of names back to back."""
    return (table[at : at + NAME_BYTES] for at in range(0, len(table), NAME_BYTES))
