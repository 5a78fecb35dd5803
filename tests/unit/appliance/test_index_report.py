"""What people are told of an index run."""

from appliance.cli.index_report import told, warnings
from appliance.indexing import IndexReport
from mounter.volumes.network import NetworkVolume
from proxy.model import Reason, ReasonCode

REPORT = IndexReport(
    "20261122-1",
    12,
    ("/dev/sdb (xfs): bad superblock",),
    (
        Reason(ReasonCode.FILES_READ_DIRECTLY),
        Reason(ReasonCode.INDEX_INCREMENTAL, "/dev/sda1: 12 entries listed again, 1 gone"),
        Reason(ReasonCode.QUIESCED_BUT_DIRTY, "/dev/sda1 (/): needs_recovery"),
    ),
    1024,
    4096,
    (NetworkVolume("nfs", "nas:/home", "/home", "/etc/fstab"),),
)


def test_a_run_is_told_with_its_reasons_and_what_is_not_protected() -> None:
    assert list(told(REPORT)) == [
        "20261122-1: 12 entries recorded; 1.0 KiB of 4.0 KiB metadata read",
        "  files-read-directly",
        "  index-incremental: /dev/sda1: 12 entries listed again, 1 gone",
        "  not protected by this backup: nfs nas:/home at /home (/etc/fstab)",
    ]


def test_what_could_not_be_read_and_what_is_dirty_needs_attention() -> None:
    assert list(warnings(REPORT)) == [
        "20261122-1: /dev/sdb (xfs): bad superblock",
        "20261122-1: quiesced, and yet not clean: /dev/sda1 (/): needs_recovery",
    ]
    assert list(warnings(IndexReport("p", 1, ()))) == []
