"""The manifest: everything of a restore point survives, every flipped byte is found, the future is told as such."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from blake3 import blake3

from proxy.errors import FormatError
from proxy.model import (
    Consistency,
    ImageInfo,
    Level,
    MachineConfiguration,
    Reason,
    ReasonCode,
    RestorePoint,
)
from proxy.repository import manifest
from proxy.repository.chunks import Keys

KEYS = Keys(b"k" * 32)
MOMENT = datetime(2026, 11, 22, 11, 45, 46, 123456, tzinfo=UTC)
IMAGE = ImageInfo(
    "vda", 1 << 40, "indexes/ab/abcd", "ef" * 32, "san", "naa.6", 5, 4, 3, "bitmap-1",
    (Reason(ReasonCode.CHANGES_FROM_BITMAP, "detail ü"),), Level.INCREMENTAL,
)  # fmt: skip
POINT = RestorePoint(
    "20261122T114546.123456Z-00112233", "uuid", "web «1»\n", "h1", "run", MOMENT, Level.INCREMENTAL, Consistency.FILESYSTEM,
    (IMAGE, replace(IMAGE, key="vdb", change_id=None)), MachineConfiguration("libvirt-xml", "<a>\r\n</a>", bytes(range(256))),
    (Reason(ReasonCode.QUIESCED_NO_HOOKS),), "parent", "kvm", 0.25, MOMENT + timedelta(seconds=9),
)  # fmt: skip


def test_everything_of_a_restore_point_survives() -> None:
    assert manifest.decode("m", manifest.encode(POINT, KEYS), KEYS) == POINT
    bare = replace(POINT, configuration=MachineConfiguration("libvirt-xml", "", None), sealed_at=None, images=())
    assert manifest.decode("m", manifest.encode(bare, KEYS), KEYS) == bare


def test_every_flipped_byte_is_found() -> None:
    data = manifest.encode(POINT, KEYS)
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        with pytest.raises(FormatError):
            manifest.decode("m", bytes(damaged), KEYS)


def test_every_truncation_is_found() -> None:
    data = manifest.encode(POINT, KEYS)
    for end in range(0, len(data), 7):
        with pytest.raises(FormatError):
            manifest.decode("m", data[:end], KEYS)


def test_a_manifest_of_another_repository_is_refused() -> None:
    with pytest.raises(FormatError, match="digest"):
        manifest.decode("m", manifest.encode(POINT, KEYS), Keys(b"x" * 32))


def sealed(body: bytes) -> bytes:
    return body + b"\nblake3 " + blake3(body, key=KEYS.object).hexdigest().encode() + b"\n"


def test_a_manifest_from_the_future_is_refused_with_a_clear_message() -> None:
    with pytest.raises(FormatError, match=r"version 2; this software knows lanfree-restore-point up to 1: update it"):
        manifest.decode("m", sealed(b'{"format": "lanfree-restore-point", "version": 2, "other": {}}'), KEYS)


def test_a_document_that_holds_no_restore_point_is_refused() -> None:
    with pytest.raises(FormatError, match=r"point"):
        manifest.decode("m", sealed(b'{"format": "lanfree-restore-point", "version": 1, "point": {"id": 5}}'), KEYS)


def test_ids_sort_by_time_repeat_for_one_run_and_tell_no_host() -> None:
    first = manifest.point_id(MOMENT, "uuid", "run-1")
    later = manifest.point_id(MOMENT + timedelta(microseconds=1), "uuid", "run-0")
    assert first.startswith("20261122T114546.123456Z-")
    assert first < later
    assert first == manifest.point_id(MOMENT, "uuid", "run-1")
    assert first != manifest.point_id(MOMENT, "uuid", "run-2")
    assert first != manifest.point_id(MOMENT, "other", "run-1")


def test_names_of_manifests_do_not_show_the_machine() -> None:
    name = manifest.manifest_name(KEYS, "4f0a-uuid", "p")
    assert name.startswith("points/")
    assert name.endswith("/p")
    assert "4f0a" not in name
    assert name != manifest.manifest_name(Keys(b"x" * 32), "4f0a-uuid", "p")
