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
from mounter.volumes.partition_tables import PartitionTables

# blkid's names of what holds no files itself, and is told only when it could not be opened.
LUKS, BITLOCKER = "crypto_LUKS", "BitLocker"
LVM_MEMBER, RAID_MEMBER = "LVM2_member", "linux_raid_member"
_ENCRYPTED = {LUKS: "LUKS", BITLOCKER: "BitLocker"}
_SILENT = {"swap", "swsuspend", "jbd", LVM_MEMBER, RAID_MEMBER}

# btrfs' first superblock and, within it, the UUID of the device (not of the file system): "On-disk format", dev_item.
_BTRFS_DEVICE_UUID = 0x1_0000 + 0xC9 + 66

# Characters that LVM allows in names: lvm(8), "VALID NAMES".
_LOGICAL_VOLUME = re.compile(r"/dev/[A-Za-z0-9+_.-]+/[A-Za-z0-9+_.-]+")

# Encrypted volumes inside of encrypted volumes; more levels than this are an attack on our patience.
_LEVELS = 4

# On a busy machine without KVM the appliance's kernel may wait too long for its first cipher ("Connection timed out").
_TRIES = 2

NOTHING: Sequence[Any] = ()

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Found:
    """Something that may hold files. ``device``: as the appliance names it; ``block``: the device that ``device`` lies on,
    another one for subvolumes, whose path is ``name``; ``type``: blkid's, ``unknown`` for none; ``uuid``: as it is on the
    disk, whatever the clone was given for this session."""

    device: str
    block: str
    type: str
    uuid: str = ""
    label: str = ""
    name: str = ""
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class _Told:
    """What blkid says of a device; empty where it says nothing."""

    type: str = ""
    uuid: str = ""
    label: str = ""


class Containers:
    """Opens all that can be opened. ``found``: file systems, and what could not be opened with its reason."""

    def __init__(
        self, g: Any, tables: PartitionTables, keys: Sequence[Key], unlock: Callable[[str, bytes, str], None]
    ) -> None:
        """``unlock(device, secret, name)`` makes ``/dev/mapper/name``; raises ``RuntimeError`` or ``OSError``."""
        self._g = g
        self._keys = keys
        self._unlock = unlock
        self._problems: dict[str, str] = {}
        self._opened: set[str] = set()
        self._told: dict[str, _Told] = {}
        self._tables = tables
        self._look(_bare_devices(g, tables))
        if self._any(RAID_MEMBER):
            self._explain_arrays()
        if self._any(LVM_MEMBER) or self._md:
            self._find_logical_volumes()
        for _ in range(_LEVELS):
            if not self._open_encrypted():
                break
            self._find_logical_volumes()
        self._explain_members()
        self.found: Sequence[Found] = [found for found in map(self._found, self._told) if found is not None]

    def _look(self, devices: Iterable[str]) -> None:
        for device in devices:
            if device not in self._told:
                try:
                    self._told[device] = _told(self._g, device)
                except (RuntimeError, UnicodeDecodeError) as error:
                    self._told[device] = _Told()
                    self._problems[device] = _cannot_be_read(error)

    def _any(self, kind: str) -> bool:
        return any(told.type == kind for told in self._told.values())

    @property
    def _md(self) -> list[str]:
        return [d for d in self._told if d.startswith("/dev/md")]

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
        # LVM's complaints about damaged metadata come as names among names.
        self._look(name for name in said(g.lvs, NOTHING) if _LOGICAL_VOLUME.fullmatch(name))

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
            for device in second:
                self._told[device] = said(_told, self._told[device], g, device)

    def _open_encrypted(self) -> bool:
        """Try keys on all that is encrypted and still closed; whether something new was opened."""
        new: list[str] = []
        for device, told in list(self._told.items()):
            if told.type in _ENCRYPTED and device not in self._opened and device not in self._problems:
                mapped = self._try_keys(device, told.type, told.uuid)
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
        if f"/dev/mapper/{name}" in self._told:  # of a clone
            name += f"-{device.rpartition('/')[2]}"
        why = "no key was given" if not keys else ""
        for secret in dict.fromkeys(form for key in keys for form in key.forms()):
            for _ in range(_TRIES):
                try:
                    self._unlock(device, secret, name)
                    return f"/dev/mapper/{name}"
                except (RuntimeError, OSError) as error:
                    why = _why_closed(error, len(keys))
                    if "timed out" not in str(error):
                        break
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
                if _letters(uuid) not in known | spare:
                    self._problems[device] = "physical volume of LVM: its volume group cannot be read"

    def _having(self, kind: str) -> Iterator[tuple[str, str]]:
        """Devices of this type with their UUIDs."""
        return ((device, told.uuid) for device, told in self._told.items() if told.type == kind)

    def _found(self, device: str) -> Found | None:
        told, problem = self._told[device], self._problems.get(device)
        if device in self._opened or (problem is None and told.type in _SILENT):
            return None
        if not told.type:
            if problem is None and not self._tables.may_hold_files(device):
                return None
            return Found(device, device, "unknown", problem=problem or "no file system that we know")
        return Found(device, device, told.type, told.uuid, told.label, problem=problem)


def _told(g: Any, device: str) -> _Told:
    """One call for all, where that can be: each is a program to start. Raises ``RuntimeError``, ``UnicodeDecodeError``."""
    try:
        facts: dict[str, str] = g.blkid(device)
    except (RuntimeError, UnicodeDecodeError):  # also where blkid finds two things at once; then the others have a rule
        facts = {"TYPE": g.vfs_type(device)}
        if facts["TYPE"]:
            facts |= {"UUID": said(g.vfs_uuid, "", device), "LABEL": said(g.vfs_label, "", device)}
    label = facts.get("LABEL", "")
    # It escapes what a shell would take amiss, and writes "M-C" for what is not ASCII.
    label = said(g.vfs_label, "", device) if re.search(r"[\\^]|M-", label) else label
    return _Told(facts.get("TYPE", ""), facts.get("UUID", ""), label)


def said(call: Callable[..., _T], otherwise: _T, *facts: object) -> _T:
    """What the appliance says about a guest, or ``otherwise`` when it cannot: these facts are welcome, never needed."""
    try:
        return call(*facts)
    except (RuntimeError, UnicodeDecodeError):
        return otherwise


def _bare_devices(g: Any, tables: PartitionTables) -> list[str]:
    """Disks without partitions, partitions, arrays, dynamic volumes. Dynamic disks' own partitions are left out: the first
    volume often begins where they do, and would be found twice."""
    partitions, dynamic = g.list_partitions(), said(g.list_ldm_volumes, NOTHING)
    whole = [*tables.disks, *g.list_md_devices()]
    split = {d for d in whole if any(re.fullmatch(re.escape(d) + r"p?\d+", p) for p in partitions)}
    hidden = {d for d in split if tables.is_dynamic(d)}
    kept = [p for p in partitions if p.rstrip("0123456789") not in hidden]
    return [*(d for d in whole if d not in split), *kept, *dynamic]


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
