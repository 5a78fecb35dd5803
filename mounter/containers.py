"""What lies between disks and file systems, opened inside a libguestfs appliance: LVM, RAID, dynamic disks, encryption.

::

    disk ─ partition ─┬─ file system
                      ├─ RAID array ─────────┐            the appliance assembles these at its start: mdadm, LVM with thin
                      ├─ volume group ─ LV ──┤            pools, Windows dynamic disks; we open what needs a key, and tell
                      ├─ LUKS, BitLocker ────┴─ any of    clones of LVM and btrfs apart, which the kernel cannot
                      └─ dynamic disk           these

``g`` is the handle of the appliance (``libguestfs.py``, the only importer of ``guestfs``). Its disks are overlays: what is
written here (another UUID for a clone) ends with the session.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mounter.keys import Key, for_volume

# blkid's names of what holds no files itself, and is told only when it could not be opened.
LUKS, BITLOCKER = "crypto_LUKS", "BitLocker"
LVM_MEMBER, RAID_MEMBER = "LVM2_member", "linux_raid_member"
_ENCRYPTED = {LUKS: "LUKS", BITLOCKER: "BitLocker"}
_SILENT = {"swap", "swsuspend", "jbd", LVM_MEMBER, RAID_MEMBER}

# Partitions that hold no files by their type: extended ones and dynamic disks (MBR); dynamic disks' data and metadata,
# Microsoft's reserved one, GRUB's (GPT). The UEFI specification, section 5.3.3, and Microsoft's PARTITION_INFORMATION_GPT.
_MBR_DYNAMIC = 0x42
_MBR_FILELESS = {0x05, 0x0F, 0x85, _MBR_DYNAMIC}
_GPT_DYNAMIC = {"5808C8AA-7E8F-42E0-85D2-E1E90434CFB3", "AF9B60A0-1431-4F62-BC68-3311714A69AD"}
_GPT_FILELESS = _GPT_DYNAMIC | {"E3C9E316-0B5C-4DB8-817D-F92DF00215AE", "21686148-6449-6E6F-744E-656564454649"}

# btrfs' first superblock and, within it, the UUID of the device (not of the file system): "On-disk format", dev_item.
_BTRFS_DEVICE_UUID = 0x1_0000 + 0xC9 + 66

# Encrypted volumes inside of encrypted volumes; more levels than this are an attack on our patience.
_LEVELS = 4

NOTHING: Sequence[Any] = ()

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Found:
    """Something that may hold files. ``device``: as the appliance names it; ``type``: blkid's, ``unknown`` for none;
    ``uuid``: as it is on the disk, whatever the clone was given for this session."""

    device: str
    type: str
    uuid: str = ""
    problem: str | None = None


class Containers:
    """Opens all that can be opened. ``found``: file systems, and what could not be opened with its reason."""

    def __init__(self, g: Any, keys: Sequence[Key], unlock: Callable[[str, bytes, str], None]) -> None:
        """``unlock(device, secret, name)`` makes ``/dev/mapper/name``; raises ``RuntimeError`` or ``OSError``."""
        self._g = g
        self._keys = keys
        self._unlock = unlock
        self._problems: dict[str, str] = {}
        self._opened: set[str] = set()
        self._types: dict[str, str] = {}
        self._look(_bare_devices(g))
        if RAID_MEMBER in self._types.values():
            self._explain_arrays()
        if LVM_MEMBER in self._types.values() or self._md:
            self._find_logical_volumes()
        for _ in range(_LEVELS):
            if not self._open_encrypted():
                break
            self._find_logical_volumes()
        self._explain_members()
        self.found: Sequence[Found] = [found for found in map(self._found, self._types) if found is not None]

    def _look(self, devices: Iterable[str]) -> None:
        for device in devices:
            if device not in self._types:
                try:
                    self._types[device] = self._g.vfs_type(device)
                except (RuntimeError, UnicodeDecodeError) as error:
                    self._types[device] = ""
                    self._problems[device] = _cannot_be_read(error)

    @property
    def _md(self) -> list[str]:
        return [d for d in self._types if d.startswith("/dev/md")]

    def _explain_arrays(self) -> None:
        """Members of arrays that were not assembled: too many of their disks are missing."""
        g = self._g
        running = {_hexadecimal(dict(said(g.md_detail, NOTHING, d)).get("uuid", "")) for d in self._md}
        for device, uuid in self._having(RAID_MEMBER):
            if _hexadecimal(uuid) not in running:
                self._problems[device] = "member of a RAID array that cannot be assembled: disks of it are missing"

    def _find_logical_volumes(self) -> None:
        g = self._g
        self._separate_volume_groups()
        said(g.lvm_scan, None, True)
        self._look(said(g.lvs, NOTHING))

    def _separate_volume_groups(self) -> None:
        """Give the second copy of a volume group a name and UUIDs of its own: LVM refuses both while there are two.

        All second copies of physical volumes are renamed together, as one volume group may lie on several of them.
        """
        g = self._g
        copies: dict[str, list[str]] = defaultdict(list)
        for device, uuid in self._having(LVM_MEMBER):
            copies[uuid].append(device)
        for number in range(1, max((len(c) for c in copies.values()), default=1)):
            second = [devices[number] for devices in copies.values() if len(devices) > number]
            said(g.lvm_set_filter, None, second)  # LVM sees nothing but these, and activates them
            said(g.vg_activate_all, None, False)
            for group in said(g.vgs, NOTHING):
                said(g.vgrename, None, group, f"{group}.copy{number + 1}")
            for device in second:
                said(g.pvchange_uuid, None, device)
            for group in said(g.vgs, NOTHING):
                said(g.vgchange_uuid, None, group)
            said(g.lvm_clear_filter, None)

    def _open_encrypted(self) -> bool:
        """Try keys on all that is encrypted and still closed; whether something new was opened."""
        new: list[str] = []
        for device, kind in list(self._types.items()):
            if kind in _ENCRYPTED and device not in self._opened and device not in self._problems:
                uuid = said(self._g.vfs_uuid, "", device)
                mapped = self._try_keys(device, kind, uuid)
                if mapped is not None:
                    self._opened.add(device)
                    new.append(mapped)
        self._look(new)
        return bool(new)

    def _try_keys(self, device: str, kind: str, uuid: str) -> str | None:
        keys = for_volume(self._keys, device, uuid)
        # Fedora and RHEL name them so in /etc/fstab, which then needs no translation.
        name = (
            f"luks-{uuid}"
            if kind == LUKS and re.fullmatch("[0-9A-Fa-f-]{36}", uuid)
            else f"opened-{device.rpartition('/')[2]}"
        )
        if f"/dev/mapper/{name}" in self._types:  # of a clone
            name += f"-{device.rpartition('/')[2]}"
        why = "no key was given" if not keys else ""
        for secret in dict.fromkeys(form for key in keys for form in key.forms()):
            try:
                self._unlock(device, secret, name)
                return f"/dev/mapper/{name}"
            except (RuntimeError, OSError) as error:
                why = _why_closed(error, len(keys))
        self._problems[device] = f"encrypted ({_ENCRYPTED[kind]}): {why}"
        return None

    def _explain_members(self) -> None:
        """Physical volumes that no volume group knows: its metadata is damaged, or on a disk that is missing."""
        g = self._g
        members = list(self._having(LVM_MEMBER))
        if members:
            known = {_letters(u) for group in said(g.vgs, NOTHING) for u in said(g.vgpvuuids, NOTHING, group)}
            spare = {_letters(p["pv_uuid"]) for p in said(g.pvs_full, NOTHING)}
            for device, uuid in members:
                # A clone has got another UUID on the way; what LVM lists as readable is no riddle.
                if _letters(uuid) not in known | spare:
                    self._problems[device] = "physical volume of LVM: its volume group cannot be read"

    def _having(self, kind: str) -> Iterator[tuple[str, str]]:
        """Devices of this type with their UUIDs."""
        for device in [d for d, k in self._types.items() if k == kind]:
            yield device, said(self._g.vfs_uuid, "", device)

    def _found(self, device: str) -> Found | None:
        kind, problem = self._types[device], self._problems.get(device)
        if device in self._opened or (problem is None and kind in _SILENT):
            return None
        if not kind:
            if problem is None and not _may_hold_files(self._g, device):
                return None
            return Found(device, "unknown", "", problem or "no file system that we know")
        return Found(device, kind, said(self._g.vfs_uuid, "", device), problem)


def said(call: Callable[..., _T], otherwise: _T, *facts: object) -> _T:
    """What the appliance says about a guest, or ``otherwise`` when it cannot: these facts are welcome, never needed."""
    try:
        return call(*facts)
    except (RuntimeError, UnicodeDecodeError):
        return otherwise


def _bare_devices(g: Any) -> list[str]:
    """Disks without partitions, partitions, arrays, dynamic volumes. Dynamic disks' own partitions are left out: the first
    volume often begins where they do, and would be found twice."""
    partitions, dynamic = g.list_partitions(), said(g.list_ldm_volumes, NOTHING)
    whole = [*g.list_devices(), *g.list_md_devices()]
    split = {d for d in whole if any(re.fullmatch(re.escape(d) + r"p?\d+", p) for p in partitions)}
    if dynamic:
        partitions = [p for p in partitions if not _is_dynamic(g, p)]
    return [*(d for d in whole if d not in split), *partitions, *dynamic]


def _partition_type(g: Any, partition: str) -> int | str | None:
    """MBR's number, GPT's GUID, ``None`` for anything else that has no partition table."""
    try:
        disk, number = g.part_to_dev(partition), g.part_to_partnum(partition)
        if g.part_get_parttype(disk) == "gpt":
            return str(g.part_get_gpt_type(disk, number)).upper()
        return int(g.part_get_mbr_id(disk, number))
    except (RuntimeError, UnicodeDecodeError):
        return None


def _is_dynamic(g: Any, partition: str) -> bool:
    kind = _partition_type(g, partition)
    return kind == _MBR_DYNAMIC or kind in _GPT_DYNAMIC


def _may_hold_files(g: Any, device: str) -> bool:
    kind = _partition_type(g, device)
    return kind not in _MBR_FILELESS and kind not in _GPT_FILELESS


def distinct_btrfs(g: Any, found: Sequence[Found]) -> list[Found]:
    """btrfs over several devices once, by its first one. A clone gets another UUID: the kernel mounts one of equals only."""
    seen: dict[str, set[bytes]] = defaultdict(set)
    kept: list[Found] = []
    for each in found:
        if each.type == "btrfs" and each.uuid and each.problem is None:
            device = said(g.pread_device, b"", each.device, 16, _BTRFS_DEVICE_UUID)
            known = seen[each.uuid]
            if known and device not in known:
                known.add(device)
                continue
            if known:
                said(g.set_uuid_random, None, each.device)
            known.add(device)
        kept.append(each)
    return kept


def _why_closed(error: Exception, keys: int) -> str:
    text = str(error)
    if "No key available" in text or "exited with status 2" in text:
        return "the key that was given does not open it" if keys == 1 else f"none of the {keys} keys opens it"
    return (text.strip().splitlines() or [type(error).__name__])[0][:300]


def _cannot_be_read(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    if "No such file" in text:
        return "logical volume that cannot be activated: disks of its volume group are missing"
    return text


def _hexadecimal(text: str) -> str:
    return re.sub("[^0-9a-f]", "", text.lower())


def _letters(text: str) -> str:
    return text.replace("-", "")
