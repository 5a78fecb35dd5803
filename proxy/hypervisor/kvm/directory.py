"""Files in a directory of a host, seen and touched through libvirt's storage driver: the same on a remote host."""

import math
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeVar
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from proxy.hypervisor.kvm.answers import Refused
from proxy.hypervisor.kvm.connection import Host, active_pools, make_pool
from proxy.units import KiB, MiB

T = TypeVar("T")

# A qcow2 image as QEMU makes it by default: clusters of 64 KiB; header, refcount table and first refcount block take one
# each, then comes the L1 table with eight bytes for each 512 MiB of the disk. The first write of a guest adds two clusters.
# https://gitlab.com/qemu-project/qemu/-/blob/master/docs/interop/qcow2.txt
CLUSTER = 64 * KiB
EMPTY_CLUSTERS = 3
L1_ENTRY = 8
L1_REACH = 512 * MiB


# Each further look at a directory needs another file to vanish in the same instant.
SCANS = 4


@dataclass(frozen=True, slots=True)
class Image:
    """What an image says of itself. ``backing``: the image that it rests on, by the name in its header. ``empty``: it is so
    short that nothing was ever written to it; by its length, not by the blocks it takes, which a file system may compress.
    """

    backing: str | None
    empty: bool


class Directory:
    """Files in one directory of a host, through its storage driver: works the same on a remote host.

    An active pool of the site that already covers the directory is used; otherwise a transient one named
    ``lanfree-<hash>`` is made, which is gone when libvirt restarts.
    """

    def __init__(self, host: Host, path: str) -> None:
        self.host = host
        self.path = str(PurePosixPath(path))

    def free(self) -> int:
        """Bytes free, as the host's file system counts them (root's reserve included)."""
        return int(self._call("read free space", lambda p: p.info()[3]))

    def names(self) -> set[str]:
        """Regular files there."""
        return self._call("list directory", lambda p: set(p.listVolumes()))

    def backing(self, name: str) -> str | None:
        """What an image there names as its backing image, as the image says it."""
        return self._call("read image header", lambda pool: _image(pool.storageVolLookupByName(name)).backing)

    def images(self, names: Callable[[str], bool]) -> dict[str, Image]:
        """Every image there that is called so, by name."""

        def work(pool: Any) -> dict[str, Image]:
            return {volume.name(): _image(volume) for volume in pool.listAllVolumes(0) if names(volume.name())}

        return self._scan("read image headers", work)

    def growth(self, names: Callable[[str], bool]) -> int:
        """Bytes by which the images there that are called so may still grow: as large as the disks that they hold."""

        def work(pool: Any) -> int:
            volumes = [volume for volume in pool.listAllVolumes(0) if names(volume.name())]
            return sum(max(0, capacity - allocation) for _, capacity, allocation in (v.info() for v in volumes))

        return self._scan("read image sizes", work)

    def delete(self, name: str) -> None:
        """Delete a file; one that is not there is fine."""

        def work(pool: Any) -> None:
            if name in pool.listVolumes():
                pool.storageVolLookupByName(name).delete(0)

        self._call("delete file", work)

    def read(self, name: str, limit: int) -> bytes | None:
        """A file's bytes, ``None`` when it is absent. Raises ``Refused`` when it is larger than ``limit``."""

        def work(connection: Any) -> bytes | None:
            pool = self._pool(connection)
            if name not in pool.listVolumes():
                return None
            volume = pool.storageVolLookupByName(name)
            size = volume.info()[1]
            if size > limit:
                raise Refused(f"read {name}", f"it has {size} bytes")
            stream = connection.newStream(0)
            volume.download(stream, 0, size, 0)
            out = bytearray()
            while piece := stream.recv(65536):
                out += piece
            stream.finish()
            return bytes(out)

        return self.host.call("read file", work)

    def write(self, name: str, data: bytes) -> None:
        """A new file with these bytes. Refused when it exists."""

        def work(connection: Any) -> None:
            xml = (
                f"<volume><name>{escape(name)}</name><capacity>{len(data)}</capacity>"
                "<target><format type='raw'/><permissions><mode>0600</mode></permissions></target></volume>"
            )
            volume = self._pool(connection).createXML(xml, 0)
            stream = connection.newStream(0)
            volume.upload(stream, 0, len(data), 0)
            for start in range(0, len(data), 65536):
                stream.send(data[start : start + 65536])
            stream.finish()

        self.host.call("write file", work, reads=False)

    def _scan(self, what: str, work: Callable[[Any], T]) -> T:
        """Another run may delete a file between the listing and the look at it: then all are looked at once more."""
        for _ in range(SCANS - 1):
            with suppress(Refused):
                return self._call(what, work)
        return self._call(what, work)

    def _call(self, what: str, work: Callable[[Any], T]) -> T:
        return self.host.call(f"{what} {self.path}", lambda c: work(self._pool(c)))

    def _pool(self, connection: Any) -> Any:
        """The pool over the directory, refreshed so that it shows what is there now."""
        pool = self._existing(connection)
        if pool is None:
            name = f"lanfree-{uuid.uuid5(uuid.NAMESPACE_URL, self.path).hex[:12]}"
            path = escape(self.path)
            xml = f"<pool type='dir'><name>{name}</name><target><path>{path}</path></target></pool>"
            # Refused when somebody else made it just now: then it is there.
            pool = make_pool(connection, xml) or self._existing(connection)
            if pool is None:
                raise Refused("open directory", f"{self.path} cannot be made a storage pool")
        pool.refresh(0)
        return pool

    def _existing(self, connection: Any) -> Any:
        for pool in active_pools(connection):
            xml = ElementTree.fromstring(pool.XMLDesc(0))  # noqa: S314 - libvirt's own words
            if xml.get("type") in ("dir", "fs", "netfs") and xml.findtext("target/path") == self.path:
                return pool
        return None


def _image(volume: Any) -> Image:
    xml = ElementTree.fromstring(volume.XMLDesc(0))  # noqa: S314 - libvirt's own words
    length = xml.findtext("physical")
    least = EMPTY_CLUSTERS * CLUSTER + math.ceil(int(xml.findtext("capacity") or 0) / L1_REACH) * L1_ENTRY
    empty = length is not None and int(length) < least + CLUSTER
    return Image(xml.findtext("backingStore/path"), empty)
