"""Whose the clusters of an NTFS volume are."""

from collections.abc import Iterator

from mounter.layout import ntfs_format as disk
from mounter.layout.model import Bytes, LayoutDoubt
from mounter.layout.ntfs import NtfsLayout
from mounter.layout.owners import JOURNAL, METADATA, Owners

_LOG_FILE = 2


def owners(volume: Bytes) -> Owners:
    """Raises ``LayoutDoubt``. What is so small that it lies in the MFT is metadata."""
    layout = NtfsLayout(volume)
    tree = layout.full()
    return Owners.of(_rows(layout), tree)


def _rows(layout: NtfsLayout) -> Iterator[tuple[int, int, int]]:
    """Of every attribute with clusters, streams and indexes among them."""
    cluster = layout.boot.cluster
    for number, data in layout.raw_records():
        base = disk.base_of(data) or number
        owner = base if base >= disk.FIRST_OF_USERS or base == disk.ROOT else METADATA
        if base == _LOG_FILE:
            owner = JOURNAL
        try:
            for _, at, end in disk.attributes(data):
                runs = disk.run_list(data, at, end) if data[at + 8] else []
                yield from ((first * cluster, (first + n) * cluster, owner) for first, n in runs if first >= 0)
        except LayoutDoubt:
            continue
