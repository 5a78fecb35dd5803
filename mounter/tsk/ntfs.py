"""NTFS: records, names and facts read here as ntfs-3g shows them, contents by The Sleuth Kit.

TSK reads the whole MFT before it lists the first directory, to find deleted files that nobody wants here, and it writes
``^`` for what it takes for unprintable in names. What ntfs-3g shows is what the appliance gives: root owns everything with
mode 0777, metadata files are hidden, alternate streams are attributes ``user.*``, a directory's size is its index.
"""

import struct
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence

from mounter.ports import FileEntry, FileType
from mounter.tsk import ntfs_records as records
from mounter.tsk.image import Region
from mounter.tsk.library import Run, TskVolume
from mounter.tsk.native import PIECE, Damaged
from mounter.tsk.ntfs_links import Special, interix, reparse
from proxy.errors import FastPathRefused, MountFailed

ROOT = 5
_MFT, _VOLUME = 0, 3
_FIRST_USER = 16

# Interix kept links and device files in small system files; larger ones are what they are (ntfs-3g: magic and 4 KiB).
_INTERIX_LONGEST = 8 + 2 * 4096

# Nobody's attribute list or reparse point is larger: NTFS' own limits.
_LISTED = 256 * 1024


class Ntfs:
    """The port's facts of one NTFS volume."""

    root = ROOT

    def __init__(self, region: Region, device: str) -> None:
        self.region = region
        self._device = device
        boot = region.pread(0, 512)
        sector, per_cluster = struct.unpack_from("<HB", boot, 11)
        self._cluster = sector * (per_cluster if per_cluster <= 128 else 1 << (256 - per_cluster))
        if sector not in (512, 1024, 2048, 4096) or not self._cluster:
            raise FastPathRefused("damaged", f"the boot sector of {device} makes no sense")
        self._record = self._sized(boot[64])
        self._tsk = TskVolume(region, device, "ntfs")
        self._mft = self._tsk.runs(_MFT)
        self._starts = [run.at for run in self._mft]
        name = self.record(_VOLUME).find(records.VOLUME_NAME)
        self.label = records.text(name.value or b"").decode(errors="replace") if name else ""

    def names(self, inode: int) -> Sequence[tuple[bytes, int]]:
        """As ``Native``."""
        record = self.record(inode)
        root = record.find(records.INDEX_ROOT, records.I30)
        if not record.flags & records.IS_DIRECTORY or root is None or root.value is None:
            raise Damaged(f"volume {self._device}", f"inode {inode} is no directory")
        found = [(records.text(n), i) for n, i in records.index_entries(root.value, 16) if i >= _FIRST_USER]
        blocks = record.find(records.INDEX_ALLOCATION, records.I30)
        bitmap = record.find(records.BITMAP, records.I30)
        if blocks is None or bitmap is None:
            return found
        (size,) = struct.unpack_from("<I", root.value, 8)
        if size < 512 or size > 65536:
            raise Damaged(f"volume {self._device}", f"directory {inode}: index blocks of {size} bytes")
        used = bitmap.value if bitmap.value is not None else self._value(inode, bitmap, bitmap.size)
        # A size alone may be a lie that takes for ever to read; the bitmap has been read.
        for start, data in self._blocks(inode, min(blocks.size, len(used) * 8 * size)):
            for at in range(0, len(data) - size + 1, size):
                number = (start + at) // size
                if number // 8 < len(used) and used[number // 8] >> number % 8 & 1:
                    block = records.repaired(data[at : at + size])
                    found += [(records.text(n), i) for n, i in records.index_entries(block, 24) if i >= _FIRST_USER]
        return found

    def entry(self, inode: int, path: bytes) -> FileEntry:
        """As ``Native``."""
        record = self.record(inode)
        information = record.find(records.STANDARD_INFORMATION)
        if information is None or information.value is None or information.size < 36:
            raise Damaged(f"volume {self._device}", f"inode {inode} has no times")
        _, mtime, ctime, _, flags = struct.unpack_from("<QQQQI", information.value)
        directory = bool(record.flags & records.IS_DIRECTORY)
        body = record.find(records.INDEX_ALLOCATION, records.I30) if directory else record.find(records.DATA)
        size, allocated = (body.size, body.allocated) if body is not None else (0, 0)
        special = self._special(inode, record, flags, size, path)
        kind = special.type if special else FileType.DIRECTORY if directory else FileType.FILE
        target = special.target if special else None
        if special and special.type is FileType.SYMLINK:
            size = len(target or b"")
        return FileEntry(
            path,
            kind,
            size,
            0o777,
            0,
            0,
            records.nanoseconds(mtime),
            records.nanoseconds(ctime),
            inode,
            target,
            1 if directory and not special else record.links,
            (allocated + 511) // 512 * 512,
            special.device if special else (0, 0),
        )

    def pieces(self, inode: int, offset: int) -> Iterator[bytes]:
        """As ``Native``."""
        return self._tsk.pieces(inode, offset, PIECE)

    def content(self, inode: int, offset: int, length: int) -> bytes:
        """As ``Native``."""
        return self._tsk.content(inode, offset, length)

    def runs(self, inode: int) -> Sequence[Run]:
        """As ``Native``."""
        return self._tsk.runs(inode)

    def xattrs(self, inode: int) -> Mapping[bytes, bytes]:
        """Alternate streams, as ntfs-3g has them."""
        record = self.record(inode)
        streams = [a for a in record.attributes if a.type == records.DATA and a.name]
        return {b"user." + records.text(a.name): self._whole(inode, a) for a in streams}

    def record(self, inode: int) -> records.Record:
        """A record and, where it does not fit into one, those that its attribute list names. Raises ``Damaged``."""
        record = records.record_of(self._raw(inode))
        listed = record.find(records.ATTRIBUTE_LIST)
        if listed is not None:
            value = listed.value if listed.value is not None else self._tsk_list(inode, listed)
            for number in records.references(value):
                if number != inode:
                    record.attributes += records.record_of(self._raw(number)).attributes
        return record

    def resolve(self, path: bytes) -> bytes | None:
        """A path (``/`` between its parts) in the volume's own spelling, whatever case it has; ``None`` if it is not there."""
        here, made = ROOT, b""
        for part in path.split(b"/"):
            if not part or part == b".":
                continue
            if part == b"..":
                return None
            try:
                children = self.names(here)
            except Damaged:
                return None
            wanted = _folded(part)
            found = next((c for c in children if c[0] == part), None) or next(
                (c for c in children if _folded(c[0]) == wanted), None
            )
            if found is None:
                return None
            made, here = made + b"/" + found[0], found[1]
        return made or b"/"

    def _blocks(self, inode: int, size: int) -> Iterator[tuple[int, bytes]]:
        """A directory's index blocks up to ``size`` bytes, and where each piece stands. Clusters that are smaller than a
        block may part it: then everything is one piece."""
        runs = self._tsk.runs(inode, records.INDEX_ALLOCATION, b"$I30")
        if self._cluster < 4096:
            data = b"".join(self.region.pread(r.start, r.length) for r in runs if not r.hole and r.at < size)
            yield 0, data[:size]
            return
        for run in runs:
            length = min(run.length, size - run.at)
            for at in range(0, 0 if run.hole else length, PIECE):
                yield run.at + at, self.region.pread(run.start + at, min(PIECE, length - at))

    def _special(self, inode: int, record: records.Record, flags: int, size: int, path: bytes) -> Special | None:
        """What POSIX has a word for and NTFS says with reparse points, or Interix with system files."""
        if flags & records.FLAG_REPARSE:
            point = record.find(records.REPARSE_POINT)
            if point is not None:
                return reparse(self._whole(inode, point), path, self.resolve)
        if flags & records.FLAG_SYSTEM and not record.flags & records.IS_DIRECTORY and size <= _INTERIX_LONGEST:
            data = record.find(records.DATA)
            return interix(self._whole(inode, data) if data is not None else b"")
        return None

    def _whole(self, inode: int, attribute: records.Attribute) -> bytes:
        if attribute.value is not None:
            return attribute.value
        return self._value(inode, attribute, min(attribute.size, 16 * 1024 * 1024))

    def _value(self, inode: int, attribute: records.Attribute, length: int, offset: int = 0) -> bytes:
        if attribute.type == records.DATA and not attribute.name:
            return self._tsk.content(inode, offset, length)
        number = self._tsk_number(inode, attribute)
        return self._tsk.content(inode, offset, length, attribute.type, number)

    def _tsk_number(self, inode: int, attribute: records.Attribute) -> int:
        """TSK numbers attributes anew where those of several records have the same number: ask by name."""
        name = records.text(attribute.name)
        for kind, number, named, _ in self._tsk.attributes(inode):
            if kind == attribute.type and named == name:
                return number
        return attribute.id

    def _tsk_list(self, inode: int, listed: records.Attribute) -> bytes:
        if listed.size > _LISTED:
            raise Damaged(f"volume {self._device}", f"inode {inode}: an attribute list of {listed.size} bytes")
        return self._tsk.content(inode, 0, listed.size, records.ATTRIBUTE_LIST, listed.id)

    def _raw(self, inode: int) -> bytes:
        at = inode * self._record
        index = bisect_right(self._starts, at) - 1
        run = self._mft[index] if 0 <= index < len(self._mft) else None
        if run is None or run.hole or at + self._record > run.at + run.length:
            raise Damaged(f"volume {self._device}", f"there is no MFT record {inode}")
        raw = self.region.pread(run.start + at - run.at, self._record)
        if len(raw) < self._record:
            raise MountFailed(f"volume {self._device}", f"MFT record {inode} is behind its end")
        return raw

    def _sized(self, told: int) -> int:
        size = 1 << (256 - told) if told > 127 and told >= 240 else told * self._cluster
        if size not in (1024, 2048, 4096):
            raise FastPathRefused("damaged", f"MFT records of {size} bytes on {self._device}")
        return size


def _folded(name: bytes) -> str:
    """Case folding of NTFS, one character for one: what has no single upper-case letter stays as it is."""
    folded = name.decode("utf-8", "surrogatepass")
    return "".join(c.upper() if len(c.upper()) == 1 else c for c in folded)
