"""On-disk structures of NTFS. Source: layout.h of ntfs-3g and the Linux-NTFS documentation; all little-endian."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from mounter.layout.model import Bytes, Doubt, LayoutDoubt, exactly
from proxy.units import KiB, MiB

ROOT = 5
FIRST_OF_USERS = 16
"""Records below are the file system's own; like the guest, we do not show them."""

_LIST, _STANDARD, _NAME, _DATA, _INDEX, _REPARSE = 0x20, 0x10, 0x30, 0x80, 0xA0, 0xC0
_END = 0xFFFFFFFF
_DOS = 2
_IN_USE, _DIRECTORY = 1, 2
_SYSTEM = 0x4
_I30 = "$I30".encode("utf-16-le")
_REFERENCE = (1 << 48) - 1

# From 1601 to 1970 in units of 100 ns.
_EPOCH = 116_444_736_000_000_000
_FURTHEST = (1 << 63) - 1

# Runs of the MFT: a badly fragmented one has some thousands.
_MOST_RUNS = 1_000_000
_LARGEST_LIST = 4 * MiB

_RECORD = struct.Struct("<4sHHQHHHHIIQ")
_ATTRIBUTE = struct.Struct("<IIBBHHH")


@dataclass(frozen=True, slots=True)
class Boot:
    """Sizes in bytes; ``mft``: where record 0 lies."""

    cluster: int
    record: int
    mft: int


@dataclass(slots=True)
class Record:
    """What one MFT record says; a file with many attributes has several, all but the first with a ``base``.

    ``names``: parent, its sequence number, name (UTF-8). ``size``: of the unnamed data, ``index``: of the directory's
    blocks, both -1 where another record tells. ``times``: written and changed, in ns since 1970, ``None`` likewise.
    """

    sequence: int
    base: int
    base_sequence: int
    directory: bool
    names: list[tuple[int, int, bytes]] = field(default_factory=list)
    times: tuple[int, int] | None = None
    size: int = -1
    index: int = -1
    ask: bool = False


def boot(volume: Bytes) -> Boot:
    """Raises ``LayoutDoubt`` for what is no NTFS."""
    raw = exactly(volume, 0, 512)
    sector, per_cluster = struct.unpack_from("<HB", raw, 11)
    (mft,) = struct.unpack_from("<Q", raw, 0x30)
    (size,) = struct.unpack_from("<b", raw, 0x40)
    cluster = sector * (per_cluster if per_cluster <= 0x80 else 1 << (256 - per_cluster))
    record = size * cluster if size > 0 else 1 << -size
    if raw[3:11] != b"NTFS    " or record not in (KiB, 2 * KiB, 4 * KiB) or not 512 <= cluster <= 2 * MiB:
        raise LayoutDoubt(Doubt.UNKNOWN_FORMAT, "no NTFS boot sector that makes sense")
    return Boot(cluster, record, mft * cluster)


def fixed(raw: bytes) -> bytes | None:
    """A record with its update sequence undone, ``None`` when it is not in use. Raises ``LayoutDoubt`` when torn."""
    magic, at, count, _, _, _, _, flags, _, _, _ = _RECORD.unpack_from(raw)
    if magic != b"FILE" or not flags & _IN_USE:
        return None
    if at + 2 * count > len(raw) or (count - 1) * 512 != len(raw):
        raise LayoutDoubt(Doubt.DAMAGED, "an MFT record's update sequence does not fit it")
    out = bytearray(raw)
    mark = raw[at : at + 2]
    for number in range(1, count):
        end = number * 512
        if out[end - 2 : end] != mark:
            raise LayoutDoubt(Doubt.DAMAGED, "an MFT record was not written whole")
        out[end - 2 : end] = raw[at + 2 * number : at + 2 * number + 2]
    return bytes(out)


def record(raw: bytes) -> Record | None:
    """Parse a record as it lies on disk; ``None``: not in use."""
    data = fixed(raw)
    if data is None:
        return None
    _, _, _, _, sequence, _, _, flags, _, _, base = _RECORD.unpack_from(data)
    out = Record(sequence, base & _REFERENCE, base >> 48, bool(flags & _DIRECTORY))
    for kind, at, end in attributes(data):
        if kind == _NAME:
            _name(data, at, end, out)
        elif kind == _STANDARD:
            _standard(data, at, end, out)
        elif kind in (_DATA, _INDEX) and _first_part(data, at):
            named = data[at + 9] and _attribute_name(data, at)
            if kind == _DATA and not named:
                out.size = _size(data, at)
            elif kind == _INDEX and named == _I30:
                out.index = _size(data, at)
        elif kind == _REPARSE:
            out.ask = True
    return out


def base_of(data: bytes) -> int:
    """Number of the record that this one goes on with, 0 for a base record."""
    return int(_RECORD.unpack_from(data)[10] & _REFERENCE)


def attributes(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Type, begin and end of each attribute of a record."""
    (at,) = struct.unpack_from("<H", data, 0x14)
    while at + 16 <= len(data):
        kind, length = struct.unpack_from("<II", data, at)
        if kind == _END:
            return
        if length < 24 or at + length > len(data):
            break
        yield kind, at, at + length
        at += length
    raise LayoutDoubt(Doubt.DAMAGED, "an MFT record's attributes have no end")


def _value(data: bytes, at: int, end: int) -> bytes:
    """Of a resident attribute."""
    length, offset = struct.unpack_from("<IH", data, at + 16)
    if data[at + 8] or at + offset + length > end:
        raise LayoutDoubt(Doubt.DAMAGED, "an attribute does not lie in its record")
    return data[at + offset : at + offset + length]


def _attribute_name(data: bytes, at: int) -> bytes:
    length = data[at + 9] * 2
    (offset,) = struct.unpack_from("<H", data, at + 10)
    return data[at + offset : at + offset + length]


def _first_part(data: bytes, at: int) -> bool:
    """Resident, or the part of it with the first cluster, which tells the size."""
    return not data[at + 8] or not any(data[at + 16 : at + 24])


def _size(data: bytes, at: int) -> int:
    if not data[at + 8]:
        return int(struct.unpack_from("<I", data, at + 16)[0])
    return int(struct.unpack_from("<Q", data, at + 48)[0])


def _name(data: bytes, at: int, end: int, out: Record) -> None:
    value = _value(data, at, end)
    length, space = value[64], value[65]
    if space == _DOS:
        return
    text = value[66 : 66 + 2 * length]
    (parent,) = struct.unpack_from("<Q", value)
    # Windows allows halves of surrogate pairs; they stay what they are.
    name = text.decode("utf-16-le", "surrogatepass").encode("utf-8", "surrogatepass")
    out.names.append((parent & _REFERENCE, parent >> 48, name))


def _standard(data: bytes, at: int, end: int, out: Record) -> None:
    _, written, changed, _, flags = struct.unpack_from("<QQQQI", _value(data, at, end))
    out.times = (_time(written), _time(changed))
    # Files of the system may stand for devices and pipes (Interix), which their contents tell.
    out.ask = out.ask or (bool(flags & _SYSTEM) and not out.directory)


def _time(filetime: int) -> int:
    """Nanoseconds since 1970; times before 1677 and after 2262 are those years, as 64 bits hold no more."""
    return max(-_FURTHEST, min(_FURTHEST, (filetime - _EPOCH) * 100))


@dataclass(frozen=True, slots=True)
class Table:
    """The MFT: ``runs`` of (first cluster, clusters), ``size`` of its records in bytes."""

    runs: tuple[tuple[int, int], ...]
    size: int


def table(volume: Bytes, b: Boot) -> Table:
    """Where the MFT lies, from its own record 0; what does not fit there is in other records, named in a list."""
    data = fixed(exactly(volume, b.mft, b.record))
    if data is None:
        raise LayoutDoubt(Doubt.DAMAGED, "the MFT does not describe itself")
    runs: list[tuple[int, int]] = []
    size = 0
    others: list[int] = []
    for kind, at, end in attributes(data):
        if kind == _DATA and not data[at + 9]:
            runs += run_list(data, at, end)
            size = _size(data, at)
        elif kind == _LIST:
            others = list(_parts(volume, b, data, at, end))
    for number in others:
        found = Table(tuple(runs), size)
        part = fixed(read_records(volume, b, found, number, 1))
        if part is None:
            raise LayoutDoubt(Doubt.DAMAGED, "a part of the MFT's own description is not in use")
        for kind, at, end in attributes(part):
            if kind == _DATA and not part[at + 9]:
                runs += run_list(part, at, end)
    if not runs or runs[0][0] * b.cluster != b.mft or sum(n for _, n in runs) * b.cluster < size:
        raise LayoutDoubt(Doubt.DAMAGED, "the MFT does not describe itself")
    return Table(tuple(runs), size)


def _parts(volume: Bytes, b: Boot, data: bytes, at: int, end: int) -> Iterator[int]:
    """Records that hold further runs of the MFT, in order."""
    if data[at + 8]:
        size = _size(data, at)
        if size > _LARGEST_LIST:
            raise LayoutDoubt(Doubt.DAMAGED, f"a list of attributes of {size} bytes")
        pieces = (exactly(volume, c * b.cluster, n * b.cluster) for c, n in run_list(data, at, end))
        listed = b"".join(pieces)[:size]
    else:
        listed = _value(data, at, end)
    here = 0
    while here + 26 <= len(listed):
        kind, length, name, _, first, reference = struct.unpack_from("<IHBBQQ", listed, here)
        if length < 26:
            return
        if kind == _DATA and not name and first:
            yield reference & _REFERENCE
        here += length


def run_list(data: bytes, at: int, end: int) -> list[tuple[int, int]]:
    """First cluster and number of clusters of each run; (-1, n) for holes."""
    if not data[at + 8]:
        raise LayoutDoubt(Doubt.DAMAGED, "runs of an attribute without clusters")
    (offset,) = struct.unpack_from("<H", data, at + 32)
    here, cluster = at + offset, 0
    out: list[tuple[int, int]] = []
    while here < end and data[here] and len(out) < _MOST_RUNS:
        lengths, offsets = data[here] & 15, data[here] >> 4
        count = int.from_bytes(data[here + 1 : here + 1 + lengths], "little")
        here += 1 + lengths
        step = int.from_bytes(data[here : here + offsets], "little", signed=True)
        here += offsets
        cluster += step
        if here > end or count <= 0 or cluster < 0:
            raise LayoutDoubt(Doubt.DAMAGED, "a list of runs makes no sense")
        out.append((cluster if offsets else -1, count))
    return out


def read_records(volume: Bytes, b: Boot, t: Table, first: int, count: int) -> bytes:
    """Records as they lie on disk, back to back."""
    start, end = first * b.record, (first + count) * b.record
    pieces: list[bytes] = []
    position = 0
    for cluster, clusters in t.runs:
        length = clusters * b.cluster
        low, high = max(start, position), min(end, position + length)
        if low < high:
            if cluster < 0:
                raise LayoutDoubt(Doubt.DAMAGED, "the MFT has holes")
            pieces.append(exactly(volume, cluster * b.cluster + low - position, high - low))
        position += length
    data = b"".join(pieces)
    if len(data) != end - start:
        raise LayoutDoubt(Doubt.DAMAGED, f"record {first} is behind the end of the MFT")
    return data
