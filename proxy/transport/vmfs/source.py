"""A file of a VMFS volume as a ``BlockSource``: a flat disk, or the container of a sparse one.

::

    file      |DDDD|....|zzzz|DDDDDDDD|        D data, . hole, z allocated and still to be zeroed
    extents   |DATA|  ZERO   |  DATA  |
    places    |LUN0|    -    |LUN1|LUN0|       what a planner reads: contiguous on one LUN
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from proxy.closing import Closeable
from proxy.errors import ChangesUnknown, ReadFailed, TransportRefused
from proxy.extents import Extent
from proxy.model import ChangeId, ReasonCode
from proxy.transport import runs
from proxy.transport.guard import check_read, fill_zero
from proxy.transport.vmfs.addresses import DATA
from proxy.transport.vmfs.filesystem import Vmfs
from proxy.transport.vmfs.fs_format import FileType
from proxy.transport.vmfs.reasons import VmfsReason

ZERO_PLACE = -1
"""Instead of a LUN's index: the bytes lie nowhere and read as zero."""


class FilePlace(NamedTuple):
    """``length`` bytes of a file from ``start`` lie at ``offset`` of LUN number ``lun``, or nowhere (``ZERO_PLACE``)."""

    start: int
    length: int
    lun: int
    offset: int


class VmfsFile(Closeable):
    """One regular file, opened. The volume and its LUNs stay the caller's; reads may come from many threads at once."""

    can_report_extents = True

    def __init__(self, fs: Vmfs, path: str) -> None:
        """Reads the descriptor and the upper levels of the map. Raises ``TransportRefused``, ``ReadFailed``."""
        self.fs = fs
        self.path = path
        self.file = fs.lookup(path)
        if self.file.type not in {FileType.REGULAR, FileType.RAW_DEVICE}:
            raise fs.subject.refuse(VmfsReason.NOT_A_FILE, f"{path} is a {self.file.type.name.lower()}")
        self.map = fs.map(self.file)
        self.size = self.file.size
        self.identity = f"vmfs:{fs.descriptor.uuid}/{path.strip('/')}"
        self._closed = False

    def extents(self) -> Sequence[Extent]:
        """See the port. Refuses (``TransportRefused``) what it does not understand anywhere in the map."""
        check_read(self.identity, self.size, 0, 0, closed=self._closed)
        return runs.alternating(self.map.edges().tolist(), self.size)

    def changed(self, since: ChangeId) -> Sequence[Extent]:
        """Always raises ``ChangesUnknown``: the hypervisor tracks changes, not the file."""
        raise ChangesUnknown(self.fs.subject.disk, ReasonCode.NO_TRACKING, f"{self.identity} records none ({since})")

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """See the port."""
        check_read(self.identity, self.size, offset, len(buffer), closed=self._closed)
        end = offset + len(buffer)
        try:
            for run in self.map.runs(offset, end):
                view = buffer[run.start - offset : run.end - offset]
                if run.kind == DATA:
                    self.fs.volume.read_into(run.offset, view)
                else:
                    fill_zero(view)
        except TransportRefused as error:
            raise ReadFailed(self.identity, offset, len(buffer), error.message) from error

    def places(self, start: int = 0, length: int | None = None) -> Iterator[FilePlace]:
        """Where ``[start, start + length)`` (to the end, if ``None``) lies, in order, without gaps, contiguous ones joined.

        Lazily, in the memory of one pointer block. Raises ``TransportRefused``, ``ReadFailed``.
        """
        end = self.size if length is None else start + length
        check_read(self.identity, self.size, start, end - start, closed=self._closed)
        zero_from = start
        segment = self.fs.volume.segment(0)
        for run in self.map.runs(start, end):
            if run.kind != DATA:
                continue
            if zero_from < run.start:
                yield FilePlace(zero_from, run.start - zero_from, ZERO_PLACE, 0)
            position, offset = run.start, run.offset
            while position < run.end:
                if not segment.start <= offset < segment.end:
                    segment = self.fs.volume.segment(offset)
                part = min(run.end - position, segment.end - offset)
                yield FilePlace(position, part, segment.lun, offset - segment.start + segment.offset)
                position += part
                offset += part
            zero_from = run.end
        if zero_from < end:
            yield FilePlace(zero_from, end - zero_from, ZERO_PLACE, 0)

    def fingerprint(self) -> bytes:
        """Of the map as it is on disk now: nothing cached is used. Equal ones mean that nothing moved meanwhile.

        Raises ``TransportRefused`` where the file is not even the same any more, ``ReadFailed``.
        """
        self.fs.forget()
        file = self.fs.file(self.file.address, self.file.generation)
        return self.fs.map(file).fingerprint()

    def close(self) -> None:
        """Reads fail from now on; LUNs are left open."""
        self._closed = True
