"""JSON of manifests and records: its bytes are the format, and what storage gives back may be anything."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

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
from proxy.repository import documents
from proxy.repository.leases import Holder
from proxy.repository.manifest import Link, Manifest, decode, encode
from proxy.repository.sealing import Keyring, Keys, Sealer

NAME = "points/0011223344556677/20261122T114546.123456Z-9f86d081"
INDEX = "indexes/ab/ab" + 30 * "0"

# As manifests of this format were first written, by another library: every character.
WRITTEN = (
    '{"point":{"id":"20261122T114546.123456Z-9f86d081","machine":"m","machine_name":"web","host":"h","run":"r",'
    '"created_at":"2026-11-22T11:45:46.123456Z","level":"incremental","consistency":"application","images":[{"key":"vda",'
    f'"size":1099511627776,"index":"{INDEX}","digest":"dd","transport":"san","source":"naa.6001","bytes_read":5,'
    '"bytes_new":4,"bytes_stored":3,"change_id":"c","reasons":[{"code":"first-backup","detail":"ü \u2028 \\"x\\" / \\\\"}],'
    '"level":"incremental"}],"configuration":{"kind":"libvirt-xml","text":"<domain/>","nvram":"APv__j4_"},"reasons":[],'
    '"parent":null,"hypervisor":"kvm","frozen_seconds":0.25,"sealed_at":"2026-11-22T12:00:00+01:00"},'
    '"link":{"number":2,"previous":"x","previous_hash":"y"}}'
)

IMAGE = ImageInfo(
    key="vda",
    size=2**40,
    index=INDEX,
    digest="dd",
    transport="san",
    source="naa.6001",
    bytes_read=5,
    bytes_new=4,
    bytes_stored=3,
    change_id="c",
    reasons=(Reason(ReasonCode.FIRST_BACKUP, 'ü \u2028 "x" / \\'),),
    level=Level.INCREMENTAL,
)
POINT = RestorePoint(
    id="20261122T114546.123456Z-9f86d081",
    machine="m",
    machine_name="web",
    host="h",
    run="r",
    created_at=datetime(2026, 11, 22, 11, 45, 46, 123456, UTC),
    level=Level.INCREMENTAL,
    consistency=Consistency.APPLICATION,
    images=(IMAGE,),
    configuration=MachineConfiguration("libvirt-xml", "<domain/>", bytes([0, 251, 255, 254, 62, 63])),
    hypervisor="kvm",
    frozen_seconds=0.25,
    sealed_at=datetime(2026, 11, 22, 12, tzinfo=timezone(timedelta(hours=1))),
)
MANIFEST = Manifest(POINT, Link(2, "x", "y"))


@pytest.fixture
def sealer() -> Sealer:
    return Sealer(bytes(16), 4096, Keys(Keyring((bytes(32),), sealed=True)))


def test_a_manifest_is_written_as_it_always_was(sealer: Sealer) -> None:
    data = encode(MANIFEST, sealer, NAME)
    assert sealer.unbox(b"LANFMANI", NAME, data, signed=True).decode() == WRITTEN


def test_a_manifest_as_it_was_first_written_is_read(sealer: Sealer) -> None:
    assert decode(NAME, sealer.box(b"LANFMANI", NAME, WRITTEN.encode(), sign=True), sealer) == MANIFEST


def test_a_manifest_without_nvram_is_read_back(sealer: Sealer) -> None:
    bare = Manifest(replace(POINT, configuration=MachineConfiguration("none", "")), Link(1))
    assert decode(NAME, encode(bare, sealer, NAME), sealer) == bare


def test_what_a_later_version_adds_is_left_out(sealer: Sealer) -> None:
    document = json.loads(WRITTEN)
    document["point"]["colour"] = {"deep": [1, 2]}
    data = sealer.box(b"LANFMANI", NAME, json.dumps(document).encode(), sign=True)
    assert decode(NAME, data, sealer) == MANIFEST


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('"size":1099511627776', '"size":"1099511627776"', "size"),
        ('"size":1099511627776', '"size":1099511627776.5', "size"),
        ('"level":"incremental","con', '"level":"odd","con', "level"),
        ('"created_at":"2026-11-22T11:45:46.123456Z"', '"created_at":"yesterday"', "created_at"),
        ('"nvram":"APv__j4_"', '"nvram":"APv__j4"', "nvram"),
        ('"nvram":"APv__j4_"', '"nvram":7', "nvram"),
        ('"configuration":{"kind"', '"configuration":[],"other":{"kind"', "configuration"),
        ('"machine":"m",', "", "machine"),
        ('"link":{"number":2', '"link":{"number":null', "number"),
        ('"link":{', '"link":', "malformed"),
    ],
)
def test_what_does_not_fit_is_named(sealer: Sealer, before: str, after: str, said: str) -> None:
    assert before in WRITTEN
    data = sealer.box(b"LANFMANI", NAME, WRITTEN.replace(before, after).encode(), sign=True)
    with pytest.raises(FormatError, match=said) as raised:
        decode(NAME, data, sealer)
    assert NAME in raised.value.message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"7",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"kind":' * 100_000,
        b'{"kind":"' + b"x" * 10_000 + b'"}',
    ],
    ids=["empty", "open", "null", "number", "list", "no text", "deep list", "deep object", "long"],
)
def test_anything_else_is_a_short_error(data: bytes) -> None:
    with pytest.raises(FormatError, match="does not hold a lease") as raised:
        documents.decode(Holder, "leases/x", data, "a lease")
    assert len(str(raised.value)) < 400
