"""Why this transport refuses, beside the reasons of the layers under it."""

from enum import StrEnum

from proxy.errors import TransportRefused
from proxy.transport.san import MODE


class VmfsSanReason(StrEnum):
    """One word each: told to people, kept with the restore point, compared."""

    NOT_VSPHERE = "not-a-vsphere-disk"
    NOT_VMFS = "datastore-not-vmfs"
    RAW_DEVICE = "raw-device-mapping"
    ENCRYPTED = "disk-encrypted"
    NO_DEVICES = "datastore-without-devices"
    NO_UUID = "datastore-without-uuid"
    DEVICE_NAMES = "lvm-device-names"
    OTHER_DATASTORE = "parent-on-other-datastore"
    IN_USE = "file-open-for-writing"
    SIZE_MISMATCH = "size-mismatch"
    UNSTABLE = "map-not-stable"
    CHANGED = "map-changed"
    ALLOCATION = "allocation-differs"
    DISQUALIFIED = "datastore-disqualified"
    NOT_QUALIFIED = "datastore-not-qualified"


LAN_READS_IT = "a LAN transport reads it through its host"


def refused(disk: str, reason: VmfsSanReason, detail: str, *, hint: str = LAN_READS_IT) -> TransportRefused:
    """The error to raise."""
    return TransportRefused(MODE, disk, reason, detail, hint=hint)
