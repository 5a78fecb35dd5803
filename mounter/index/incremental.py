"""An index run that lists again only what was written since the base point, and says for each volume why it did more.

::

    memory of the base point ─┐                          ┌─ nothing of it was written: carried over whole
    what differs in the disk ─┴─> Layout.update ─> tree ─┼─ difference(base tree, tree): listed anew, gone
                                                         └─ LayoutDoubt: the guest's file system is walked as a whole

Whenever a volume is walked as a whole, the layout is read as well and compared with the walk, entry by entry and field by
field. Only where both say the same is the tree remembered. So an incremental run says what a walk would have said, or it
does not take place.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from mounter.index.difference import Difference, difference
from mounter.layout.ext import ExtLayout
from mounter.layout.model import Bytes, Changes, Doubt, Layout, LayoutDoubt, Node, Tree, guarded
from mounter.layout.ntfs import NtfsLayout
from mounter.ports import FileEntry, FileType, Volume, VolumeState
from mounter.volumes.state import state_of
from mounter.walk import FileRecord, Walkable, record_of
from proxy.errors import GuestFileNotFound, MountEnded, MountFailed
from proxy.model import Reason, ReasonCode

LAYOUTS: Mapping[str, Callable[[Bytes], Layout]] = {
    "ext2": ExtLayout,
    "ext3": ExtLayout,
    "ext4": ExtLayout,
    "ntfs": NtfsLayout,
}

BATCH = 1_000


class Session(Walkable, Protocol):
    """What an incremental walk needs: a ``MountSession``. Paths are guest paths."""

    def entry(self, path: bytes) -> FileEntry: ...


@dataclass(frozen=True, slots=True)
class Raw:
    """A volume's bytes. ``place``: disk, offset and size, as text to compare. ``read``: counts bytes that were fetched
    for it up to now. ``changes``: what may differ from the base point, ``None`` when that is not known."""

    bytes: Bytes
    place: str
    read: Callable[[], int]
    changes: Changes | None = None


@dataclass(frozen=True, slots=True)
class VolumeMemory:
    """What is remembered of a volume of one restore point. ``prefix``: guest path of its root; ``full_bytes``: what
    reading all its metadata took."""

    kind: str
    place: str
    prefix: bytes
    fingerprint: bytes
    full_bytes: int
    tree: Tree


@dataclass(frozen=True, slots=True)
class _Prepared:
    memory: VolumeMemory
    records: list[FileRecord]
    gone: list[bytes]


class IncrementalWalk:
    """Iterate to get batches of ``FileRecord``, as with ``TreeWalk``; ``volumes`` likewise.

    ``carried`` is known before the first batch: ids of volumes whose unlisted files are as in the base point. ``gone``:
    volume id and guest path of entries of the base that are not there any more, each with all below it. ``reasons``: one
    for each volume. ``memory``: by volume id, of this point, for the next run; complete after the last batch.
    ``bytes_read``: for metadata of volumes with a known layout; ``bytes_full``: what reading all of that takes.
    Raises ``MountEnded``, and what the repository raises.
    """

    def __init__(self, session: Session, raw: Mapping[str, Raw], memory: Mapping[str, VolumeMemory] | Doubt) -> None:
        """``raw``: by device name. ``memory``: of the base point by volume id, or why there is none."""
        self._session = session
        self._raw = raw
        self.volumes = [_told(volume, raw.get(volume.device)) for volume in session.volumes()]
        self.memory: dict[str, VolumeMemory] = {}
        self.bytes_read = self.bytes_full = 0
        self._prepared: dict[str, _Prepared] = {}
        self._doubts: dict[str, LayoutDoubt] = {}
        self._told: dict[str, Reason] = {}
        for volume in self.volumes:
            if volume.problem is None:
                with self._counted(volume.device):
                    self._prepare(volume, memory)
        self.carried = frozenset(self._prepared)
        self.gone: list[tuple[str, bytes]] = [(v, path) for v, made in self._prepared.items() for path in made.gone]

    @property
    def reasons(self) -> Sequence[Reason]:
        """In the order of the volumes; those that cannot be opened have none."""
        return [self._told[v.id] for v in self.volumes if v.id in self._told]

    def __iter__(self) -> Iterator[Sequence[FileRecord]]:
        for number, volume in enumerate(self.volumes):
            made = self._prepared.pop(volume.id, None)
            if made is not None:
                self.memory[volume.id] = made.memory
                for start in range(0, len(made.records), BATCH):
                    yield made.records[start : start + BATCH]
            elif volume.problem is None:
                try:
                    yield from self._walk(volume)
                except MountEnded:
                    raise
                except MountFailed as error:
                    self.memory.pop(volume.id, None)
                    self.volumes[number] = replace(volume, problem=error.message)

    def _prepare(self, volume: Volume, memory: Mapping[str, VolumeMemory] | Doubt) -> None:
        """Bring what is remembered up to date, before anything is given out: a doubt must come in time."""
        try:
            if isinstance(memory, Doubt):
                raise LayoutDoubt(memory, "no earlier index run can be built on")
            raw, layout = self._layout(volume)
            known = memory.get(volume.id)
            if known is None or raw.changes is None:
                raise LayoutDoubt(Doubt.NO_MEMORY, "nothing is remembered of it")
            if (known.kind, known.place, known.prefix) != (volume.type, raw.place, volume.guest_path(b"/")):
                raise LayoutDoubt(Doubt.MOVED, "it is another kind, in another place or mounted elsewhere")
            if known.fingerprint != layout.fingerprint:
                raise LayoutDoubt(Doubt.GEOMETRY, "its metadata lies elsewhere")
            changes = raw.changes
            tree = guarded(lambda: layout.update(known.tree, changes))
            found = difference(known.tree, tree)
            records = [self._record(volume, path, number, tree.nodes[number]) for path, number in found.listed]
        except LayoutDoubt as doubt:
            self._doubts[volume.id] = doubt
            return
        self._prepared[volume.id] = _Prepared(
            replace(known, tree=tree), records, [volume.guest_path(path) for path in found.gone]
        )
        self._told[volume.id] = _reason(volume, found, tree is known.tree)
        self.bytes_full += known.full_bytes

    def _walk(self, volume: Volume) -> Iterator[Sequence[FileRecord]]:
        """The whole volume from the session; compared on the way with what its layout says."""
        doubt = self._doubts.get(volume.id)
        check: _Check | None = None
        with self._counted(volume.device):
            before = self.bytes_read_of(volume.device)
            try:
                raw, layout = self._layout(volume)
                check = _Check(guarded(layout.full))
            except LayoutDoubt as unknown:
                doubt = unknown if doubt is None or doubt.doubt is Doubt.NO_MEMORY else doubt
            full = self.bytes_read_of(volume.device) - before
        for batch in self._session.walk(volume):
            if check is not None:
                check.see(batch)
            yield [record_of(volume, entry) for entry in batch]
        if check is not None:
            self.bytes_full += full
            why = check.differs()
            if why:
                doubt = LayoutDoubt(Doubt.DISAGREES, why)
            else:
                prefix = volume.guest_path(b"/")
                memory = VolumeMemory(volume.type, raw.place, prefix, layout.fingerprint, full, check.tree)
                self.memory[volume.id] = memory
        self._told[volume.id] = Reason(ReasonCode.INDEX_FULL, f"{volume.device}: {doubt}")

    def _layout(self, volume: Volume) -> tuple[Raw, Layout]:
        raw = self._raw.get(volume.device)
        make = LAYOUTS.get(volume.type)
        if make is None:
            raise LayoutDoubt(Doubt.UNKNOWN_FORMAT, f"{volume.type} is not read in parts")
        if raw is None:
            raise LayoutDoubt(Doubt.CONTAINER, "it does not lie in one partition or disk")
        # NTFS does not tell whether its log is empty, and no reader of it replays one: all see the same bytes.
        trusted = (VolumeState.CLEAN, VolumeState.UNKNOWN) if volume.type == "ntfs" else (VolumeState.CLEAN,)
        if volume.state not in trusted:
            raise LayoutDoubt(Doubt.DIRTY, volume.state_detail)
        return raw, guarded(lambda: make(raw.bytes))

    def _record(self, volume: Volume, path: bytes, number: int, node: Node) -> FileRecord:
        full = volume.guest_path(path)
        if not node.ask:
            return FileRecord(volume.id, full, *node[:7], number, node.link_target)
        try:
            return replace(record_of(volume, self._session.entry(full)), path=full)
        except GuestFileNotFound as error:
            raise LayoutDoubt(Doubt.DISAGREES, error.message) from None

    def bytes_read_of(self, device: str) -> int:
        """Bytes that were fetched for a volume up to now, with those of others on its disk."""
        raw = self._raw.get(device)
        return raw.read() if raw is not None else 0

    @contextmanager
    def _counted(self, device: str) -> Iterator[None]:
        before = self.bytes_read_of(device)
        try:
            yield
        finally:
            self.bytes_read += self.bytes_read_of(device) - before


class _Check:
    """Holds what a walk lists against a tree."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._directories = {b"": tree.root}
        self._seen = 0
        self._why = ""

    def see(self, batch: Sequence[FileEntry]) -> None:
        """A directory comes before what it holds."""
        self._seen += len(batch)
        for entry in batch if not self._why else ():
            parent, _, name = entry.path.rpartition(b"/")
            directory = self._directories.get(parent)
            number = self.tree.children.get(directory, {}).get(name) if directory is not None else None
            if number is None or number != entry.inode or not _equal(self.tree.nodes[number], entry):
                self._why = f"on {entry.path!r}"
            elif entry.type is FileType.DIRECTORY:
                self._directories[entry.path] = number

    def differs(self) -> str:
        """Where they disagree, empty if nowhere."""
        if not self._why and self._seen != self.tree.names():
            self._why = f"{self._seen} and {self.tree.names()} entries"
        return self._why


def _equal(node: Node, entry: FileEntry) -> bool:
    return node.ask or node[:8] == (
        entry.type,
        entry.size,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.mtime_ns,
        entry.ctime_ns,
        entry.link_target,
    )


def _told(volume: Volume, raw: Raw | None) -> Volume:
    """The volume with its state, if whoever opened it did not say."""
    if raw is None or volume.state is not VolumeState.UNKNOWN or volume.state_detail:
        return volume
    state, detail = state_of(volume.type, raw.bytes.pread)
    return replace(volume, state=state, state_detail=detail)


def _reason(volume: Volume, found: Difference, untouched: bool) -> Reason:
    if untouched:
        return Reason(ReasonCode.INDEX_CARRIED, f"{volume.device}: none of its metadata was written")
    detail = f"{volume.device}: {len(found.listed)} entries listed again, {len(found.gone)} gone"
    return Reason(ReasonCode.INDEX_INCREMENTAL, detail)
