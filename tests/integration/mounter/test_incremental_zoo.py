"""Layouts against the guest file systems' own walk, on volumes of every kind and with everything in them."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from mounter.choose import directly
from mounter.export import ImageToExport
from mounter.index.incremental import LAYOUTS, IncrementalWalk, Raw
from mounter.layout.model import Changes
from mounter.ports import VolumeState
from mounter.session import MountSession
from mounter.tsk.image import Disk
from mounter.tsk.partitions import device_name, table_of
from proxy.clock import SystemClock
from proxy.extents import Extent
from proxy.model import ReasonCode
from tests.integration.mounter import zoo
from tests.integration.mounter.openers import file_image

pytestmark = [
    pytest.mark.tools,
    pytest.mark.requires("root", "nbdkit", "mke2fs", "mkntfs", "ntfs-3g", "mkfs.vfat", "mcopy", "sfdisk"),
]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MountSession, dict[str, Raw]]]:
    """A session over the zoo's machine, and its volumes' bytes, of which none changed."""
    disks = zoo.machine(tmp_path_factory.mktemp("zoo"))
    with ExitStack() as stack:
        images = [ImageToExport(p.stem, "openers:file_image", {"path": str(p)}) for p in disks]
        session = stack.enter_context(MountSession(images, directly, clock=SystemClock()))
        raw: dict[str, Raw] = {}
        for number, path in enumerate(disks):
            disk = stack.enter_context(Disk(file_image({"path": str(path)})))
            for partition in table_of(disk, device_name(number)).partitions:
                place = f"{number}:{partition.region.offset}"
                nothing = Changes.of((), 0, 0)
                raw[partition.device] = Raw(partition.region, place, lambda disk=disk: disk.bytes_read, nothing)
        yield session, raw


def test_layouts_say_what_the_walk_says(opened: tuple[MountSession, dict[str, Raw]]) -> None:
    session, raw = opened
    walk = IncrementalWalk(session, raw, {})
    count = sum(len(batch) for batch in walk)
    known = {v.id for v in walk.volumes if v.type in LAYOUTS and v.state is not VolumeState.DIRTY and not v.problem}
    assert len(known) >= 5
    assert count > 100
    assert set(walk.memory) == known, [reason.detail for reason in walk.reasons]
    again = IncrementalWalk(session, raw, walk.memory)
    assert again.carried == known
    list(again)
    assert sum(reason.code is ReasonCode.INDEX_CARRIED for reason in again.reasons) == len(known)
    assert again.gone == []


def test_everything_read_again_lists_nothing_that_did_not_change(
    opened: tuple[MountSession, dict[str, Raw]],
) -> None:
    session, raw = opened
    walk = IncrementalWalk(session, raw, {})
    list(walk)
    whole = {
        device: Raw(r.bytes, r.place, r.read, Changes.of([Extent(0, r.bytes.size)], 0, r.bytes.size))
        for device, r in raw.items()
    }
    again = IncrementalWalk(session, whole, walk.memory)
    assert again.carried == set(walk.memory)
    carried = [record for batch in again for record in batch if record.volume in again.carried]
    assert carried == []
    assert again.gone == []
