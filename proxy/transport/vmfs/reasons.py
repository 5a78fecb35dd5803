"""Why a VMFS volume, or a file on it, is not read. One word each: they are told to people, kept and compared.

Whatever a disk says wrongly, and whatever it says that no real volume was seen to say, becomes a ``TransportRefused``: the
next transport can then read the same snapshot. A guess here would be a silent hole in a backup.
"""

from dataclasses import dataclass
from enum import StrEnum

from proxy.errors import TransportRefused


class VmfsReason(StrEnum):
    """The words of a refusal."""

    PARTITION_TABLE_DAMAGED = "partition-table-damaged"
    SECTOR_SIZE = "sector-size-not-supported"
    NO_VOLUME = "no-vmfs-volume"
    WRONG_VOLUME = "wrong-vmfs-volume"
    LVM_VERSION = "lvm-version-not-supported"
    LVM_DAMAGED = "lvm-damaged"
    LVM_EXTENDED = "lvm-extended-metadata"
    SPAN_MISSING = "span-missing"
    SPAN_AMBIGUOUS = "span-ambiguous"
    LUN_TOO_SMALL = "lun-too-small"
    VMFS_VERSION = "vmfs-version-not-supported"
    VMFS_DAMAGED = "vmfs-damaged"
    DESCRIPTOR_CHANGED = "file-descriptor-changed"
    DIRECTORY_DAMAGED = "directory-damaged"
    DIRECTORY_TOO_LARGE = "directory-too-large"
    FILE_NOT_FOUND = "file-not-found"
    NOT_A_FILE = "not-a-regular-file"
    RAW_DEVICE = "raw-device-mapping"
    FILE_TOO_LARGE = "file-too-large"
    UNKNOWN_LAYOUT = "unknown-file-layout"
    UNKNOWN_ADDRESS = "unknown-block-address"
    BLOCK_OUTSIDE = "block-outside-volume"
    BLOCK_COUNT = "block-count-differs"
    SHARED_POINTERS = "shared-pointer-block"
    PARTIALLY_ZEROED = "partially-zeroed-block"
    LARGE_BLOCK_LAYOUT = "large-block-layout"


@dataclass(frozen=True, slots=True)
class Subject:
    """On whose behalf a volume is read: the transport's mode and the disk's key, as refusals name them."""

    mode: str
    disk: str

    def refuse(self, reason: VmfsReason, detail: str, *, hint: str = "") -> TransportRefused:
        """The error to raise."""
        return TransportRefused(self.mode, self.disk, reason, detail, hint=hint)
