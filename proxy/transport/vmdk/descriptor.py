"""The text file that describes a disk ("Virtual Disk Format 5.0", VMware): its CID, its parent, its extents.

::

    # Disk DescriptorFile
    CID=fffffffe
    parentCID=ffffffff
    createType="vmfs"
    RW 20971520 VMFS "vm-flat.vmdk"        access, sectors, kind, file, for flat ones: first sector in it
    ddb.adapterType = "lsilogic"
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum

from proxy.errors import TransportRefused
from proxy.transport.vmfs.reasons import Subject
from proxy.units import KiB, TiB

SECTOR = 512
NO_PARENT = "ffffffff"

DESCRIPTOR_LIMIT = 64 * KiB
"""ESXi's have less than 1 KiB; change tracking and filters add some lines."""

SIZE_LIMIT = 64 * TiB
EXTENTS_LIMIT = 1024
"""Split disks of 2 TiB in parts of 2 GiB; ESXi itself makes one."""

_ENTRY = re.compile(r"^([A-Za-z0-9_.]+)\s*=\s*\"?([^\"]*)\"?$")
_EXTENT = re.compile(r"^(RW|RDONLY|NOACCESS)\s+(\d{1,18})\s+([A-Z0-9]+)(?:\s+\"([^\"]*)\"(?:\s+(\d{1,18}))?)?\s*$")
_CID = re.compile(r"^[0-9a-f]{8}$")


class VmdkReason(StrEnum):
    """The words of a refusal."""

    DESCRIPTOR_DAMAGED = "vmdk-descriptor-damaged"
    TYPE = "vmdk-type-not-supported"
    RAW_DEVICE = "raw-device-mapping"
    ENCRYPTED = "disk-encrypted"
    PARENT_MISMATCH = "parent-cid-mismatch"
    CHAIN = "chain-too-long"
    SIZE_MISMATCH = "size-mismatch"
    EXTENT_TOO_SMALL = "extent-too-small"
    SPARSE_DAMAGED = "sparse-extent-damaged"
    JOURNAL = "journal-not-replayed"


class Kind(StrEnum):
    """What an extent's bytes mean."""

    FLAT = "flat"
    VMFS_SPARSE = "vmfs-sparse"
    SE_SPARSE = "se-sparse"


KINDS = {"FLAT": Kind.FLAT, "VMFS": Kind.FLAT, "VMFSSPARSE": Kind.VMFS_SPARSE, "SESPARSE": Kind.SE_SPARSE}
RAW_KINDS = frozenset({"VMFSRDM", "VMFSRAW", "VMFSRDMP"})


@dataclass(frozen=True, slots=True)
class ExtentLine:
    """One extent: ``size`` and ``offset`` (within its file) in bytes."""

    kind: Kind
    size: int
    file: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class DiskDescriptor:
    """A descriptor. ``parent``: its name as it is written, ``None`` for a base; CIDs in lower case."""

    cid: str
    parent_cid: str
    parent: str | None
    create_type: str
    extents: tuple[ExtentLine, ...]
    entries: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Of the disk, bytes."""
        return sum(extent.size for extent in self.extents)


def parse_disk_descriptor(raw: bytes, name: str, subject: Subject) -> DiskDescriptor:
    """A whole descriptor file. Refuses (``TransportRefused``) what is damaged, encrypted or of an unknown kind."""
    if not raw.lstrip().startswith(b"# Disk DescriptorFile"):
        raise _refused(subject, VmdkReason.DESCRIPTOR_DAMAGED, f"{name} does not begin as a descriptor")
    entries: dict[str, str] = {}
    extents: list[ExtentLine] = []
    for line in raw.decode(errors="replace").replace("\0", "").splitlines():
        text = line.strip()
        found = _EXTENT.match(text)
        if found:
            extents.append(_extent(found, name, subject))
        elif (entry := _ENTRY.match(text)) is not None:
            entries.setdefault(entry[1].lower(), entry[2].strip())
    return _checked(entries, extents, name, subject)


def _checked(entries: dict[str, str], extents: list[ExtentLine], name: str, subject: Subject) -> DiskDescriptor:
    cid, parent_cid = entries.get("cid", "").lower(), entries.get("parentcid", "").lower()
    if not _CID.match(cid) or not _CID.match(parent_cid):
        raise _refused(subject, VmdkReason.DESCRIPTOR_DAMAGED, f"{name}: CID {cid!r}, parent's {parent_cid!r}")
    if "vmcrypt" in entries.get("ddb.iofilters", "").lower() or any("encryption" in key for key in entries):
        raise _refused(subject, VmdkReason.ENCRYPTED, name, "the LAN transport reads it through its host")
    if not 0 < len(extents) <= EXTENTS_LIMIT or not 0 < sum(e.size for e in extents) <= SIZE_LIMIT:
        raise _refused(subject, VmdkReason.DESCRIPTOR_DAMAGED, f"{name}: {len(extents)} extents")
    parent = entries.get("parentfilenamehint") or None
    if (parent_cid == NO_PARENT) != (parent is None):
        raise _refused(subject, VmdkReason.DESCRIPTOR_DAMAGED, f"{name}: parent {parent!r} with CID {parent_cid}")
    if len(extents) > 1 and any(extent.kind is not Kind.FLAT for extent in extents):
        raise _refused(subject, VmdkReason.TYPE, f"{name}: {len(extents)} extents, not all of them flat")
    if parent is not None and extents[0].kind is Kind.FLAT:
        raise _refused(subject, VmdkReason.TYPE, f"{name}: a flat disk with a parent")
    return DiskDescriptor(cid, parent_cid, parent, entries.get("createtype", ""), tuple(extents), entries)


def _extent(found: re.Match[str], name: str, subject: Subject) -> ExtentLine:
    access, sectors, kind, file, first = found.groups()
    if kind in RAW_KINDS or kind.startswith("VMFSR"):
        raise _refused(subject, VmdkReason.RAW_DEVICE, f"{name}: {kind}", "its LUN can be backed up by itself")
    if kind not in KINDS or access == "NOACCESS" or not file:
        raise _refused(subject, VmdkReason.TYPE, f"{name}: an extent {access} of kind {kind}")
    return ExtentLine(KINDS[kind], int(sectors) * SECTOR, file, int(first or 0) * SECTOR)


def _refused(subject: Subject, reason: VmdkReason, detail: str, hint: str = "") -> TransportRefused:
    return TransportRefused(subject.mode, subject.disk, reason, detail, hint=hint)
