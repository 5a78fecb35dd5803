"""The rescue program reads what Lanfree wrote, checks every byte, finds what was moved, and says what is lost."""

import errno
import json
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy import repository as repositories
from proxy.model import RestorePoint
from proxy.repository import PosixStore, Repository, keys, packs, rescue, sealing
from proxy.repository import format as layout
from proxy.repository.keys import KeyFile, Passphrase

pytestmark = pytest.mark.slow

CHUNK = 4096
KEY = bytes(range(32))
PHRASE = "correct horse, straße"
Backup = Callable[..., RestorePoint]


class Site:
    """A repository in a directory, and a way to run the rescue program on it."""

    def __init__(self, path: Path, *, sealed: bool = True) -> None:
        self.path = path / "repository"
        self.path.mkdir()
        self.store = PosixStore(self.path)
        self.secret = KeyFile(KEY) if sealed else None
        self.repository = repositories.create(
            self.store, secret=self.secret, chunk_size=CHUNK, pack_size=64 * 1024, cache=path / "cache"
        )
        self.options: list[str] = []
        if sealed:
            (path / "key").write_text(f"{KEY.hex()}\n")  # as 'lanfree init' writes it
            self.options = ["--key-file", str(path / "key")]
        self.out = path / "out"

    def run(self, *words: str) -> int:
        return rescue.main([*self.options, str(self.path), *words])

    def restored(self, point: RestorePoint, *words: str) -> bytes:
        """The disk; the program must say that it is right."""
        self.out.unlink(missing_ok=True)
        assert self.run("restore", point.id, "vda", str(self.out), *words) == 0
        return self.out.read_bytes()

    def pack_with(self, content: bytes) -> tuple[Path, int]:
        """In a repository in the clear: the pack that holds these bytes, and where."""
        for pack in self.path.glob("packs/*/*"):
            at = pack.read_bytes().find(content)
            if at >= 0:
                return pack, at
        raise AssertionError("no pack holds it")


@pytest.fixture(params=[True, False], ids=["sealed", "clear"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    return Site(tmp_path, sealed=request.param)


@pytest.fixture
def clear(tmp_path: Path) -> Site:
    return Site(tmp_path, sealed=False)


@pytest.fixture
def sealed(tmp_path: Path) -> Site:
    return Site(tmp_path)


def overwrite(path: Path, at: int, data: bytes) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def test_points_are_listed_and_disks_restored_sparse(
    site: Site, backup: Backup, capsys: pytest.CaptureFixture[str]
) -> None:
    data = os.urandom(40 * CHUNK) + bytes(6000 * CHUNK) + b"compressible " * 5000
    first = backup(site.repository, data)
    second = backup(site.repository, data[:-5] + b"other", parent=first.images[0])
    assert site.run("list") == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == [first.id, second.id]
    assert all("name of m1 (m1)" in line and f"vda ({len(data)} bytes)" in line for line in listed)
    assert site.restored(first) == data
    assert site.restored(second) == data[:-5] + b"other"
    assert site.out.stat().st_blocks * 512 < 2_000_000


def test_a_disk_goes_to_standard_output(site: Site, backup: Backup, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    data = os.urandom(3 * CHUNK) + bytes(50 * CHUNK) + os.urandom(CHUNK) + bytes(10 * CHUNK)
    point = backup(site.repository, data)
    assert site.run("restore", point.id[:20], "vda", "-") == 0
    assert capfdbinary.readouterr().out == data


def test_a_passphrase_a_paper_and_a_key_after_a_rotation_open_it(
    sealed: Site, backup: Backup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(5 * CHUNK)
    old = backup(sealed.repository, data)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    config = sealed.repository.settings
    keys.rotate(sealed.store, config, KeyFile(KEY), now=now)
    with repositories.open(sealed.store, secret=KeyFile(KEY)) as rotated:
        new = backup(rotated, data + b"more")
        keys.add_slot(sealed.store, config, rotated.keyring, Passphrase(PHRASE), label="", now=now)
        (tmp_path / "paper").write_text(keys.to_paper(config, rotated.keyring).lower().replace("\n", "\r\n\n"))
    (tmp_path / "phrase").write_text(PHRASE + "\n")
    monkeypatch.setattr(rescue.getpass, "getpass", lambda prompt: PHRASE)
    for options in (["--passphrase-file", "phrase"], ["--paper", "paper"], ["--key-file", "key"], []):
        sealed.options = [str(tmp_path / word) if not word.startswith("-") else word for word in options]
        assert sealed.restored(new if options else old) == data + (b"more" if options else b"")


def test_a_key_of_32_bytes_opens_too_and_rubbish_is_told(
    sealed: Site, backup: Backup, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = os.urandom(CHUNK)
    point = backup(sealed.repository, data)
    (tmp_path / "key").write_bytes(KEY)
    assert sealed.restored(point) == data
    (tmp_path / "key").write_text("what else")
    assert sealed.run("list") == 1
    assert "is no key file: 64 hexadecimal digits" in capsys.readouterr().err


def test_a_wrong_key_opens_nothing(
    sealed: Site, backup: Backup, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backup(sealed.repository, os.urandom(CHUNK))
    (tmp_path / "key").write_bytes(bytes(32))
    assert sealed.run("list") == 1
    assert "no key slot opens with this key-file" in capsys.readouterr().err
    paper = keys.to_paper(sealed.repository.settings, sealed.repository.keyring)
    wrong = paper[:-3] + ("AA\n" if paper[-3:] != "AA\n" else "BB\n")
    (tmp_path / "paper").write_text(wrong)
    sealed.options = ["--paper", str(tmp_path / "paper")]
    assert sealed.run("list") == 1
    assert "line 2 of the paper has a typing error" in capsys.readouterr().err


def test_the_machines_definition_and_nvram_come_out(
    site: Site, backup: Backup, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    point = backup(site.repository, os.urandom(CHUNK))
    assert site.run("configuration", point.id, "--nvram", str(tmp_path / "nvram")) == 0
    assert capsys.readouterr().out == "<domain/>\n"
    assert (tmp_path / "nvram").read_bytes() == b"\x00\xff nvram"
    assert site.run("show", point.id) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["point"]["id"], shown["link"]["number"]) == (point.id, 1)


def test_deleted_points_are_not_shown_but_a_forged_tombstone_hides_nothing(
    site: Site, backup: Backup, capsys: pytest.CaptureFixture[str]
) -> None:
    points = [backup(site.repository, os.urandom(CHUNK)) for _ in range(3)]
    manifest = site.repository.ledger.name(points[0])
    kept = (site.path / manifest).read_bytes()
    site.repository.delete(points[0].id)
    (site.path / manifest).write_bytes(kept)  # as if the deletion had been interrupted
    stone = site.path / site.repository.ledger.name(points[1]).replace("points/", "tombstones/")
    stone.write_bytes(b"no tombstone at all, but long enough to have a header of its own and a signature behind it")
    assert site.run("list") == 0
    shown = capsys.readouterr()
    assert [line.split()[0] for line in shown.out.splitlines()] == [points[1].id, points[2].id]
    assert "tombstones/" in shown.err


def test_chunks_that_were_moved_to_another_pack_are_found(site: Site, backup: Backup) -> None:
    data = os.urandom(30 * CHUNK)
    point = backup(site.repository, data)
    before = sorted(site.path.glob("packs/*/*"))
    _move_everything(site.repository)
    for pack in before:
        pack.unlink()
    assert site.restored(point) == data


def _move_everything(repository: Repository) -> None:
    """What compaction does: chunks go into new packs, as they are sealed."""
    store, chunker = repository.store, repository.chunker
    writer = packs.PackWriter(store, repository.settings, chunker, lambda pack, entries: None)
    made = set()
    for name in list(store.list("packs/")):
        pack = layout.pack_of(name)
        assert pack is not None
        for e in packs.read_footer(store, repository.settings, chunker, pack):
            place, _ = writer.add(e.id, e.codec, store.get(name, e.offset, e.stored), e.raw)
            made.add(place.pack)
    writer.flush(made)


def test_a_damaged_chunk_is_taken_from_another_pack_that_has_it(clear: Site, backup: Backup) -> None:
    data = os.urandom(10 * CHUNK)
    point = backup(clear.repository, data)
    _move_everything(clear.repository)
    with closing(clear.repository.open_view("", point.images[0])) as view:
        pack = clear.path / layout.pack_name(view.pack(1))
    overwrite(pack, pack.read_bytes().find(data[CHUNK : CHUNK + 100]) + 50, b"rubbish")
    assert clear.restored(point) == data


def test_a_damaged_chunk_ends_the_restore_or_becomes_zeroes_and_is_named(
    clear: Site, backup: Backup, capsys: pytest.CaptureFixture[str]
) -> None:
    data = os.urandom(10 * CHUNK)
    point = backup(clear.repository, data)
    for chunk in (2, 7):
        pack, at = clear.pack_with(data[chunk * CHUNK : chunk * CHUNK + 100])
        overwrite(pack, at + 50, b"rubbish")
    assert clear.run("restore", point.id, "vda", str(clear.out)) == 1
    assert f"offset {2 * CHUNK}, {CHUNK} bytes" in capsys.readouterr().err
    clear.out.unlink()
    assert clear.run("restore", point.id, "vda", str(clear.out), "--keep-going") == 1
    told = capsys.readouterr().err
    assert [f"offset {chunk * CHUNK}, {CHUNK} bytes" in told for chunk in range(10)] == [c in (2, 7) for c in range(10)]
    assert f"{2 * CHUNK} bytes could not be read" in told
    expected = bytearray(data)
    for chunk in (2, 7):
        expected[chunk * CHUNK : (chunk + 1) * CHUNK] = bytes(CHUNK)
    assert clear.out.read_bytes() == expected


def test_a_disk_is_called_right_only_when_its_bytes_are_safe(
    clear: Site, backup: Backup, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    point = backup(clear.repository, os.urandom(10 * CHUNK) + bytes(5 * CHUNK))
    safe: list[int] = []

    def lose(file: int) -> None:
        safe.append(os.fstat(file).st_size)
        raise OSError(errno.EIO, "the device lost what the cache had")

    monkeypatch.setattr(os, "fsync", lose)
    assert clear.run("restore", point.id, "vda", str(clear.out)) == 1
    told = capsys.readouterr().err
    assert "the device lost what the cache had" in told
    assert "right" not in told
    assert safe == [15 * CHUNK], "with its length"


def test_a_flipped_bit_of_a_sealed_chunk_is_noticed(
    sealed: Site, backup: Backup, capsys: pytest.CaptureFixture[str]
) -> None:
    point = backup(sealed.repository, os.urandom(2 * CHUNK))
    (pack,) = sealed.path.glob("packs/*/*")
    overwrite(pack, 1000, bytes([pack.read_bytes()[1000] ^ 1]))
    assert sealed.run("restore", point.id, "vda", str(sealed.out), "--keep-going") == 1
    assert f"unreadable: offset 0, {CHUNK} bytes" in capsys.readouterr().err


def test_flipped_bytes_of_a_manifest_an_index_and_the_configuration_are_noticed(
    site: Site, backup: Backup, capsys: pytest.CaptureFixture[str]
) -> None:
    point = backup(site.repository, os.urandom(3 * CHUNK))
    for path in (
        site.path / site.repository.ledger.name(point),
        site.path / point.images[0].index,
        site.path / "config",
    ):
        good = path.read_bytes()
        path.chmod(0o600)
        for place in {*range(0, len(good), len(good) // 41 + 1), len(good) - 1}:
            path.write_bytes(good[:place] + bytes([good[place] ^ 0x10]) + good[place + 1 :])
            assert site.run("restore", point.id, "vda", "/dev/null/nowhere") == 1
            assert "nowhere" not in capsys.readouterr().err, (path, place)
        path.write_bytes(good)
    assert site.restored(point)


def test_truncated_objects_are_named(site: Site, backup: Backup, capsys: pytest.CaptureFixture[str]) -> None:
    point = backup(site.repository, os.urandom(3 * CHUNK))
    for name in (site.repository.ledger.name(point), point.images[0].index):
        path = site.path / name
        good = path.read_bytes()
        path.chmod(0o600)
        for length in (0, 10, 60, len(good) - 1):
            path.write_bytes(good[:length])
            assert site.run("restore", point.id, "vda", str(site.out)) == 1
            assert name.rpartition("/")[2] in capsys.readouterr().err
        path.write_bytes(good)
    for pack in site.path.glob("packs/*/*"):
        pack.chmod(0o600)
        pack.write_bytes(pack.read_bytes()[:60])
    assert site.run("restore", point.id, "vda", str(site.out), "--keep-going") == 1
    assert site.out.read_bytes() == bytes(3 * CHUNK)


def test_nothing_that_exists_is_overwritten(site: Site, backup: Backup, capsys: pytest.CaptureFixture[str]) -> None:
    point = backup(site.repository, os.urandom(CHUNK))
    site.out.write_text("precious")
    assert site.run("restore", point.id, "vda", str(site.out)) == 1
    assert site.out.read_text() == "precious"
    assert "File exists" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["restore", "2", "vdz", "/tmp/x"], ["restore", "x", "vda", "/tmp/x"], ["show", ""]])
def test_what_is_not_there_or_not_unique_is_told(
    site: Site, backup: Backup, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    backup(site.repository, os.urandom(CHUNK))
    if words[0] == "show":
        backup(site.repository, os.urandom(CHUNK))
    assert site.run(*words) == 1
    assert "'list' shows them" in capsys.readouterr().err


def test_a_later_version_and_what_is_no_repository_are_refused(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = site.path / "config"
    config.chmod(0o600)
    config.write_text(config.read_text().replace('"version": 2', '"version": 3'))
    assert site.run("list") == 1
    assert "format version 3; this program reads 2" in capsys.readouterr().err
    assert rescue.main([str(tmp_path), "list"]) == 1
    assert "is this a repository's directory?" in capsys.readouterr().err


def test_a_key_slot_that_asks_for_all_memory_is_refused(
    sealed: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = sealed.repository.settings
    slot = keys.add_slot(
        sealed.store, config, sealed.repository.keyring, Passphrase(PHRASE), label="", now=datetime.now(UTC)
    )
    path = sealed.path / "keys" / slot.id
    path.chmod(0o600)
    path.write_text(json.dumps({**slot.document, "memory_kib": 1 << 30}))
    (tmp_path / "phrase").write_text(PHRASE)
    sealed.options = ["--passphrase-file", str(tmp_path / "phrase")]
    assert sealed.run("list") == 1
    told = capsys.readouterr().err
    assert "too much memory" in told
    assert "no key slot opens with this passphrase" in told


def test_a_damaged_key_slot_does_not_keep_another_from_opening(
    sealed: Site, backup: Backup, capsys: pytest.CaptureFixture[str]
) -> None:
    point = backup(sealed.repository, os.urandom(CHUNK))
    for name, content in (("00000000", b"rubbish"), ("00000001", b"[]"), ("00000002", b'{"kind": "key-file"}')):
        (sealed.path / "keys" / name).write_bytes(content)
    assert sealed.restored(point)
    assert capsys.readouterr().err.count("is damaged") == 3


def test_its_layouts_and_limits_are_those_of_the_format() -> None:
    pairs = [
        (rescue.HEADER, layout.HEADER),
        (rescue.ENTRY, layout.PACK_ENTRY),
        (rescue.TRAILER, layout.PACK_TRAILER),
        (rescue.FIELDS, layout.INDEX_FIELDS),
        (rescue.PLACE, layout.PLACE),
    ]
    assert [ours.format for ours, _ in pairs] == [theirs.struct.format for _, theirs in pairs]
    ours = (
        rescue.VERSION,
        rescue.SEGMENT,
        rescue.ID,
        rescue.NAME,
        rescue.DIGEST,
        rescue.NONCE,
        rescue.TAG,
        rescue.SLOT,
    )
    assert ours == (
        layout.VERSION,
        layout.SEGMENT_CHUNKS,
        layout.ID_BYTES,
        layout.NAME_BYTES,
        layout.DIGEST_BYTES,
        layout.NONCE_BYTES,
        layout.TAG_BYTES,
        layout.SEGMENT_BYTES,
    )
    assert (rescue.BLOCK, rescue.SIGNATURE) == (sealing.BLOCK, sealing.SIGNATURE_BYTES)


def test_the_program_prints_itself() -> None:
    assert rescue.source() == Path(rescue.__file__).read_text()
    assert rescue.source().splitlines()[0] == "# SPDX-License-Identifier: Apache-2.0"


def test_every_repository_has_the_program(site: Site) -> None:
    assert (site.path / "rescue.py").read_text() == rescue.source()


def test_a_point_of_several_disks_gives_the_disk_that_was_named(site: Site, backup: Backup) -> None:
    vda, vdb = os.urandom(3 * CHUNK), os.urandom(4 * CHUNK)
    point = backup(site.repository, vda)
    with site.repository.image_writer("vdb", len(vdb), None) as writer:
        writer.write(0, memoryview(vdb))
        second = writer.seal()
    both = site.repository.seal(replace(point, id="", run="both", images=(*point.images, second)))
    assert site.run("restore", both.id, "vdb", str(site.out)) == 0
    assert site.out.read_bytes() == vdb
