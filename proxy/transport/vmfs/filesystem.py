"""A VMFS 5 or 6 volume, read-only: opening it, names to file descriptors, whole small files.

The proxy reads while hosts write. What must stand still is made to (files below a snapshot are read-only for hosts); of the
rest, each structure says where it lies and what it is, and is refused where that does not agree.

::

    volume descriptor ── root ── "vm1" ── "vm1-flat.vmdk" ── file descriptor ── blocks
                          │ places of descriptors, sub-blocks and pointer blocks: resource files .fdc .sbc .pbc .pb2
"""

from collections.abc import Iterator, Sequence

from proxy.errors import TransportRefused
from proxy.transport.vmfs import fs_format as fmt
from proxy.transport.vmfs.addresses import DATA, TYPE_MASK, AddressType, Piece, descriptor_piece, resource_piece
from proxy.transport.vmfs.blockmap import BlockMap
from proxy.transport.vmfs.directory import DIRECTORY_LIMIT, Entry, parse_directory_5, parse_directory_6
from proxy.transport.vmfs.fs_format import FileDescriptor, FileType, SystemFile
from proxy.transport.vmfs.lun import LONGEST_READ, Lun, Metadata
from proxy.transport.vmfs.lvm import LogicalVolume, assemble, bare_volumes, scan
from proxy.transport.vmfs.lvm_format import format_uuid
from proxy.transport.vmfs.reasons import Subject, VmfsReason
from proxy.units import MiB

SMALL_FILE = 4 * MiB
"""A .vmx, descriptor or .vmsd has a few KiB; one of several MiB is not what its name says."""

NO_UUID = format_uuid(bytes(16))
"""What a file system says of its volume when it was made without one."""

DEPTH_LIMIT = 64
"""Nested directories. ESXi itself makes two or three levels."""


class Vmfs:
    """One file system on a whole logical volume. Calls may come from many threads at once.

    What was read is remembered: whoever keeps one of these calls ``forget`` before looking for what hosts made since.
    """

    def __init__(self, volume: LogicalVolume, subject: Subject) -> None:
        """Reads the volume's descriptor and the resource files' headers. Raises ``TransportRefused``, ``ReadFailed``."""
        self.volume = volume
        self.subject = subject
        self.metadata = Metadata(volume, subject)
        if volume.size < fmt.DESCRIPTOR_AT + fmt.DESCRIPTOR_SIZE:
            raise subject.refuse(VmfsReason.VMFS_DAMAGED, f"a volume of {volume.size} bytes")
        raw = self.metadata.read(fmt.DESCRIPTOR_AT, fmt.DESCRIPTOR_SIZE, "volume descriptor")
        self.descriptor = fmt.parse_descriptor(raw, subject)
        if self.descriptor.volume != (volume.uuid or NO_UUID):
            detail = (
                f"file system {self.descriptor.uuid} was made on volume {self.descriptor.volume}, not {volume.uuid}"
            )
            raise subject.refuse(VmfsReason.WRONG_VOLUME, detail)
        self.geometry = self.descriptor.geometry
        self._resources: dict[SystemFile, tuple[BlockMap, fmt.Resource]] = {}
        self._open_resources()

    @property
    def root(self) -> FileDescriptor:
        """The root directory's descriptor, as it is now."""
        return self._system_file(SystemFile.ROOT)

    def file(self, address: int, generation: int | None = None) -> FileDescriptor:
        """A file descriptor by its address. Refuses one that is free, or was given to another file since."""
        at = self._locate(SystemFile.FILE_DESCRIPTORS, descriptor_piece(address, self.subject))
        file = self._descriptor_at(at)
        if file.address != address or (generation is not None and file.generation != generation):
            detail = f"file {address:#x} of generation {generation} is {file.address:#x} of {file.generation}"
            raise self.subject.refuse(VmfsReason.DESCRIPTOR_CHANGED, detail)
        return file

    def entries(self, directory: FileDescriptor) -> list[Entry]:
        """What a directory holds, in no order. Refuses a damaged one."""
        if directory.type is not FileType.DIRECTORY:
            raise self.subject.refuse(VmfsReason.NOT_A_FILE, f"{directory.address:#x} is no directory")
        if directory.size > DIRECTORY_LIMIT:
            raise self.subject.refuse(VmfsReason.DIRECTORY_TOO_LARGE, f"{directory.size} bytes")
        data = self.contents(directory)
        if self.geometry.major == fmt.MAJOR_VMFS6:
            return parse_directory_6(data, self.subject)
        return parse_directory_5(data, self.subject)

    def lookup(self, path: str) -> FileDescriptor:
        """The file at ``path`` (``vm1/vm1.vmx``), links not followed. Refuses what is not there."""
        file = self.root
        for name in filter(None, path.split("/")):
            found = next((e for e in self.entries(file) if e.name == name), None)
            if found is None:
                raise self.subject.refuse(VmfsReason.FILE_NOT_FOUND, f"no {name!r} of {path!r} on {self.name}")
            file = self.file(found.address, found.generation)
        return file

    def walk(self, *, system: bool = False) -> Iterator[tuple[str, FileDescriptor]]:
        """Every file and directory below the root with its path; system files only if they are asked for."""
        seen: set[int] = set()
        waiting = [("", self.root, 0)]
        while waiting:
            path, directory, depth = waiting.pop()
            if directory.address in seen or depth > DEPTH_LIMIT:
                raise self.subject.refuse(VmfsReason.DIRECTORY_DAMAGED, f"{path or '/'} lies within itself")
            seen.add(directory.address)
            for entry in sorted(self.entries(directory), key=lambda e: e.name):
                if entry.type == FileType.SYSTEM and not system:
                    continue
                file = self.file(entry.address, entry.generation)
                yield f"{path}{entry.name}", file
                if file.type is FileType.DIRECTORY:
                    waiting.append((f"{path}{entry.name}/", file, depth + 1))

    def map(self, file: FileDescriptor) -> BlockMap:
        """Where the file's bytes are in the volume. Refuses layouts that are not understood."""
        return BlockMap(file, self.geometry, self.metadata, self.resolve, self.subject)

    def contents(self, file: FileDescriptor, limit: int = DIRECTORY_LIMIT) -> bytes:
        """A whole file of at most ``limit`` bytes: directories and the like. Raises ``ReadFailed``."""
        if file.size > limit:
            raise self.subject.refuse(VmfsReason.FILE_TOO_LARGE, f"{file.size} bytes where {limit} are the most")
        data = bytearray(file.size)
        for run in self.map(file).runs(0, file.size):
            if run.kind == DATA:
                for at in range(run.start, run.end, LONGEST_READ):
                    part = min(LONGEST_READ, run.end - at)
                    data[at : at + part] = self.metadata.read(run.offset + at - run.start, part, "file")
        return bytes(data)

    def read_small(self, path: str, limit: int = SMALL_FILE) -> bytes:
        """A whole small file: configuration, disk descriptor. Refuses what is larger, or no regular file."""
        file = self.lookup(path)
        if file.type is not FileType.REGULAR:
            raise self.subject.refuse(VmfsReason.NOT_A_FILE, f"{path} is a {file.type.name.lower()}")
        return self.contents(file, limit)

    def forget(self) -> None:
        """Read everything anew from now on. The resource files' own places never change while a volume is in use."""
        self.metadata.forget()

    def resolve(self, address: int) -> int:
        """Volume offset of a sub-block or pointer block."""
        kind = address & TYPE_MASK
        number = _RESOURCE_OF.get(kind)
        if number is None:
            raise self.subject.refuse(VmfsReason.UNKNOWN_ADDRESS, f"{address:#x}")
        return self._locate(number, resource_piece(address, self.geometry, self.subject))

    @property
    def name(self) -> str:
        """How people know the datastore."""
        return self.descriptor.label or self.descriptor.uuid

    # system files

    def _open_resources(self) -> None:
        """In the order in which each needs those before it; a volume may lack resources that no file of it uses."""
        pieces = {
            SystemFile.POINTER_BLOCKS_2: self.geometry.table_size,
            SystemFile.POINTER_BLOCKS: self.geometry.table_size,
            SystemFile.FILE_DESCRIPTORS: self.geometry.descriptor_size,
            SystemFile.SUB_BLOCKS: self.geometry.sub_block,
        }
        if self.geometry.major == fmt.MAJOR_VMFS6:
            del pieces[SystemFile.POINTER_BLOCKS]  # the file is there and empty: they are kept in sub-blocks
        for number, size in pieces.items():
            blocks = self.map(self._system_file(number))
            resource = fmt.parse_resource(self._system_header(blocks, 0), number.name, self.geometry, self.subject)
            if resource.size != size:
                detail = f"{number.name}: pieces of {resource.size} bytes, not {size}"
                raise self.subject.refuse(VmfsReason.VMFS_DAMAGED, detail)
            self._resources[number] = (blocks, resource)
        if self.geometry.major == fmt.MAJOR_VMFS6:
            bitmap = self.map(self._system_file(SystemFile.BLOCK_BITMAP))
            head = self._system_header(bitmap, 0)
            at = int.from_bytes(head[fmt.SMALLER_AT : fmt.SMALLER_AT + 4], "little")
            fmt.check_block_bitmap(head, self._system_header(bitmap, at), self.subject)
        if self._locate(SystemFile.FILE_DESCRIPTORS, Piece(0, 0)) != self.geometry.root_at:
            raise self.subject.refuse(VmfsReason.VMFS_DAMAGED, "the root's descriptor is not where descriptors begin")

    def _system_header(self, blocks: BlockMap, offset: int) -> bytes:
        at = blocks.place(offset, fmt.RESOURCE_HEADER_SIZE)
        return self.metadata.read(at, fmt.RESOURCE_HEADER_SIZE, "header of a resource file")

    def _system_file(self, number: SystemFile) -> FileDescriptor:
        at = self.geometry.root_at + number * self.geometry.descriptor_size
        file = self._descriptor_at(at)
        expected = AddressType.DESCRIPTOR | number << 22
        kind = FileType.DIRECTORY if number is SystemFile.ROOT else FileType.SYSTEM
        if file.address != expected or file.type is not kind:
            detail = f"system file {number.name} is {file.address:#x} of type {file.type.name}"
            raise self.subject.refuse(VmfsReason.VMFS_DAMAGED, detail)
        return file

    def _descriptor_at(self, at: int) -> FileDescriptor:
        raw = self.metadata.read(at, self.geometry.descriptor_size, "file descriptor")
        return fmt.parse_file_descriptor(raw, at, self.geometry, self.subject)

    def _locate(self, number: SystemFile, piece: Piece) -> int:
        """Volume offset of a piece of a resource file."""
        if number not in self._resources:
            raise self.subject.refuse(VmfsReason.VMFS_DAMAGED, f"{number.name} is needed to read itself")
        blocks, resource = self._resources[number]
        if piece.member >= resource.per_cluster:
            detail = f"{number.name}: piece {piece.member} of a cluster of {resource.per_cluster}"
            raise self.subject.refuse(VmfsReason.UNKNOWN_ADDRESS, detail)
        offset = resource.offset(piece.cluster, piece.member, self.geometry.alignment)
        behind = piece.cluster * resource.per_cluster + piece.member >= resource.total
        if behind or offset + resource.size > blocks.size:
            detail = f"{number.name}: piece {piece} lies behind the end of the file"
            raise self.subject.refuse(VmfsReason.BLOCK_OUTSIDE, detail)
        return blocks.place(offset, resource.size)


_RESOURCE_OF = {
    int(AddressType.SUB_BLOCK): SystemFile.SUB_BLOCKS,
    int(AddressType.POINTER_BLOCK): SystemFile.POINTER_BLOCKS,
    int(AddressType.POINTER_BLOCK_2): SystemFile.POINTER_BLOCKS_2,
}


def open_datastore(luns: Sequence[Lun], subject: Subject, *, uuid: str | None = None) -> Vmfs:
    """The file system on these LUNs; with ``uuid`` (``HostVmfsVolume.uuid``) that one of them, whatever else is there.

    Raises ``TransportRefused``: there is none, not this one, more than one, or it is not whole; ``ReadFailed``.
    """
    candidates = assemble(scan(luns, subject), subject)
    refusals = [c for c in candidates if isinstance(c, TransportRefused)]
    volumes = [c for c in candidates if isinstance(c, LogicalVolume)]
    if not candidates:
        volumes = [volume for volume in bare_volumes(luns, subject) if _has_file_system(volume, subject)]
    found = [Vmfs(volume, subject) for volume in volumes]
    wanted = [fs for fs in found if uuid is None or fs.descriptor.uuid == uuid]
    if len(wanted) == 1 and (uuid is not None or not refusals):
        return wanted[0]
    if refusals:
        raise refusals[0]
    if wanted:
        names = ", ".join(fs.descriptor.uuid for fs in wanted)
        raise subject.refuse(VmfsReason.SPAN_AMBIGUOUS, f"{len(wanted)} file systems: {names}")
    if found:
        names = ", ".join(fs.descriptor.uuid for fs in found)
        raise subject.refuse(VmfsReason.WRONG_VOLUME, f"the LUNs hold {names}, not {uuid}")
    raise subject.refuse(VmfsReason.NO_VOLUME, f"no VMFS on {len(luns)} LUNs")


def _has_file_system(volume: LogicalVolume, subject: Subject) -> bool:
    if volume.size < fmt.DESCRIPTOR_AT + fmt.DESCRIPTOR_SIZE:
        return False
    raw = Metadata(volume, subject, pages=1).read(fmt.DESCRIPTOR_AT, 4, "volume descriptor")
    return int.from_bytes(raw, "little") in fmt.MAGICS
