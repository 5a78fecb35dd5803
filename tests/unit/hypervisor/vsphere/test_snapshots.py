"""What a snapshot froze, told by the chains of the snapshot and of the machine."""

import pytest

from proxy.hypervisor.vsphere.snapshots import overlay_above


@pytest.mark.parametrize(
    ("held", "live", "kind", "overlay"),
    [
        (["a"], ["a-1", "a"], "VMFS", "a-1"),
        (["a-1", "a"], ["a-3", "a-2", "a-1", "a"], "VMFS", "a-2"),
        (["a"], ["a"], "NFS", None),
        (["a-1", "a"], ["a-2", "a"], "VMFS", None),
        ([], ["a"], "VMFS", None),
        (["a-1"], ["a"], "VVOL", "a"),
        (["a-1"], [], "VVOL", None),
    ],
    ids=["first", "somebody-snapshotted-above", "written-to", "reverted", "nothing", "made-by-the-array", "gone"],
)
def test_a_disk_is_frozen_when_something_else_is_written_to(held, live, kind, overlay):
    assert overlay_above(held, live, kind) == overlay
