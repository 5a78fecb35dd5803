"""The manifest: everything of a restore point survives, nothing is readable without the key, every flipped byte is found."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

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
from proxy.repository.manifest import Link, Manifest
from proxy.repository.sealing import Keyring, Keys, Sealer

KEYS = Keys(Keyring((b"k" * 32,)))
NAME = "points/0011223344556677/p"
LINK = Link(7, "20261121T114546.123456Z-00112233", "ab" * 32)
MOMENT = datetime(2026, 11, 22, 11, 45, 46, 123456, tzinfo=UTC)
IMAGE = ImageInfo(
    "vda", 1 << 40, "indexes/ab/abcdabcdabcdabcdabcdabcdabcdabcd", "ef" * 32, "san", "naa.6", 5, 4, 3, "bitmap-1",
    (Reason(ReasonCode.CHANGES_FROM_BITMAP, "detail ü"),), Level.INCREMENTAL,
)  # fmt: skip
POINT = RestorePoint(
    "20261122T114546.123456Z-00112233", "uuid", "web «1»\n", "h1", "run", MOMENT, Level.INCREMENTAL, Consistency.FILESYSTEM,
    (IMAGE, replace(IMAGE, key="vdb", change_id=None)), MachineConfiguration("libvirt-xml", "<a>\r\n</a>", bytes(range(256))),
    (Reason(ReasonCode.QUIESCED_NO_HOOKS),), "parent", "kvm", 0.25, MOMENT + timedelta(seconds=9),
)  # fmt: skip


def sealer_of(letter: bytes, *, sealed: bool) -> Sealer:
    return Sealer(b"r" * 16, 4096, Keys(Keyring((letter * 32,), sealed=sealed)))


@pytest.fixture(params=[True, False], ids=["sealed", "clear"])
def sealer(request: pytest.FixtureRequest) -> Sealer:
    return sealer_of(b"k", sealed=request.param)


def test_everything_of_a_restore_point_survives(sealer: Sealer) -> None:
    known = Manifest(POINT, LINK)
    assert manifest.decode(NAME, manifest.encode(known, sealer, NAME), sealer) == known
    bare = replace(POINT, configuration=MachineConfiguration("libvirt-xml", "", None), sealed_at=None, images=())
    known = Manifest(bare, Link(1))
    assert manifest.decode(NAME, manifest.encode(known, sealer, NAME), sealer) == known


def test_nothing_of_a_restore_point_can_be_read_without_the_key() -> None:
    data = manifest.encode(Manifest(POINT, LINK), sealer_of(b"k", sealed=True), NAME)
    for word in (b"web", b"uuid", b"vda", b"naa.6", b"libvirt", b"bitmap"):
        assert word not in data
    assert b"libvirt" in manifest.encode(Manifest(POINT, LINK), sealer_of(b"k", sealed=False), NAME)


@pytest.mark.slow
def test_every_flipped_byte_is_found(sealer: Sealer) -> None:
    data = manifest.encode(Manifest(POINT, LINK), sealer, NAME)
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        with pytest.raises(FormatError):
            manifest.decode(NAME, bytes(damaged), sealer)


def test_every_truncation_is_found(sealer: Sealer) -> None:
    data = manifest.encode(Manifest(POINT, LINK), sealer, NAME)
    for end in range(0, len(data), 7):
        with pytest.raises(FormatError):
            manifest.decode(NAME, data[:end], sealer)


@pytest.mark.parametrize("sealed", [True, False])
def test_a_manifest_of_another_key_is_refused(sealed: bool) -> None:
    data = manifest.encode(Manifest(POINT, LINK), sealer_of(b"k", sealed=sealed), NAME)
    with pytest.raises(FormatError, match="signature"):
        manifest.decode(NAME, data, sealer_of(b"x", sealed=sealed))


def test_a_manifest_in_the_clear_is_refused_by_a_sealed_repository() -> None:
    data = manifest.encode(Manifest(POINT, LINK), sealer_of(b"k", sealed=False), NAME)
    with pytest.raises(FormatError, match="in the clear"):
        manifest.decode(NAME, data, sealer_of(b"k", sealed=True))


def test_a_manifest_under_another_name_is_refused(sealer: Sealer) -> None:
    data = manifest.encode(Manifest(POINT, LINK), sealer, NAME)
    with pytest.raises(FormatError, match="another object's name"):
        manifest.decode("points/aa/other", data, sealer)


def test_a_document_that_holds_no_restore_point_is_refused(sealer: Sealer) -> None:
    data = sealer.box(manifest.MAGIC, NAME, b'{"point": {"id": 5}}', sign=True)
    with pytest.raises(FormatError, match=r"point"):
        manifest.decode(NAME, data, sealer)


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
    assert name != manifest.manifest_name(Keys(Keyring((b"x" * 32,))), "4f0a-uuid", "p")
