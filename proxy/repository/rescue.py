# SPDX-License-Identifier: Apache-2.0
"""Lists and restores machines from a Lanfree repository, without Lanfree: one file, no service, no database.

It needs Python 3.11 or newer and three libraries:      pip install blake3 zstandard cryptography

    python3 rescue.py REPOSITORY list                                which restore points there are
    python3 rescue.py REPOSITORY show POINT                          all that is known of one, as JSON
    python3 rescue.py REPOSITORY configuration POINT [--nvram FILE]  the machine's definition (for libvirt: virsh define)
    python3 rescue.py REPOSITORY restore POINT DISK OUTPUT           a disk, raw, to a new file (sparse); '-': standard output,
                                                                     as in:  … restore POINT DISK - | dd of=/dev/… bs=4M

REPOSITORY is a directory; fetch one that is in S3 first (``aws s3 sync s3://BUCKET/PREFIX DIRECTORY``; for a single disk
``config``, ``keys/``, ``points/``, ``tombstones/``, ``indexes/`` and ``packs/`` are enough). It is only read, never written.
POINT may be the beginning of a restore point's id.

If the repository is encrypted, name the key in front of REPOSITORY: --key-file FILE, --passphrase-file FILE, or --paper FILE
(what was printed for the safe, typed in). Without any of them the passphrase is asked for.

Every byte is checked: signatures and seals of manifests, digests of indexes and of the whole image, the id of every chunk. A
chunk that is damaged, or whose pack is gone, is looked for in all other packs. What cannot be read ends the restore, or,
with --keep-going, becomes zeroes and is listed. Exit code: 0 all is right, 1 something is not.

How a repository is laid out, byte by byte, is in FORMAT.md of the Lanfree sources, whose words are used here.
Memory: some 260 MiB for each TiB of the disk that is restored.

Longer than 400 lines: whoever needs it may have nothing but this one file.
"""

import argparse
import base64
import getpass
import inspect
import json
import os
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

HEADER = struct.Struct("<8sHHI16s16s")  # magic, version, generation, chunk size, repository, name
ENTRY = struct.Struct("<20sIII")  # id, offset, stored, raw length
TRAILER = struct.Struct(
    "<IIII32s32s8s"
)  # entries, their offset, generation, reserved, body digest, footer digest, magic
FIELDS = struct.Struct("<QQIIII")  # image size, data chunks, segments, slots, packs, reserved
PLACE = struct.Struct("<III")  # pack number, offset, stored

VERSION = 2
SEGMENT = 4096  # chunks
ID, NAME, DIGEST, NONCE, TAG, SIGNATURE = 20, 16, 32, 12, 16, 64
SLOT_IDS = SEGMENT * ID
SLOT = SLOT_IDS + SEGMENT * PLACE.size
BLOCK = 1 << 20  # index bodies are sealed in blocks of this size
SALT = 8  # with which their nonces begin
OPEN_PACKS = 64

Place = tuple[bytes, int, int]  # pack, offset, "stored" word


class Trouble(Exception):
    """What is wrong, for people."""


def check(good: bool, what: str) -> None:
    if not good:
        raise Trouble(what)


def json_text(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def derive(secret: bytes, use: str) -> bytes:
    return blake3(secret, derive_key_context=f"lanfree repository 2026 {use}").digest()


def keyed(key: bytes, data: bytes | memoryview, length: int = DIGEST) -> bytes:
    return blake3(data, key=key).digest(length)


# ---------------------------------------------------------------------------------------------- keys


def keyring(root: Path, config: dict[str, Any], kind: str, secret: bytes) -> list[bytes]:
    """The generations of the key, oldest first, from the slot that the secret opens."""
    for path in sorted((root / "keys").iterdir()):
        try:
            slot = json.loads(path.read_bytes())
            if slot["kind"] != kind:
                continue
            sealed = bytes.fromhex(slot["keyring"])
            rest = {field: value for field, value in slot.items() if field != "keyring"}
            bound = bytes.fromhex(config["id"]) + path.name.encode() + json_text(rest)
            content = json.loads(
                AESGCM(wrapping_key(slot, kind, secret)).decrypt(sealed[:NONCE], sealed[NONCE:], bound)
            )
            generations = [bytes.fromhex(generation) for generation in content["generations"]]
        except InvalidTag:
            continue  # the slot of another key
        except (AttributeError, KeyError, TypeError, ValueError, Trouble) as error:
            warn(f"key slot {path.name} is damaged: {error}; not tried")
            continue
        exchanged = content["config"] != blake3((root / "config").read_bytes()).hexdigest()
        check(not exchanged, "the config object was exchanged since the key slot was made")
        return generations
    raise Trouble(f"no key slot opens with this {kind}")


def key_in(path: Path) -> bytes:
    """A key file holds 64 hexadecimal digits; one of 32 bytes is taken as it is."""
    data = path.read_bytes()
    try:
        return data if len(data) == DIGEST else bytes.fromhex(data.decode())
    except ValueError:
        raise Trouble(f"{path} is no key file: 64 hexadecimal digits") from None


def wrapping_key(slot: dict[str, Any], kind: str, secret: bytes) -> bytes:
    if kind == "key-file":
        check(len(secret) == DIGEST, "a key file has 32 bytes")
        return derive(secret, "key file")
    passes, memory, lanes = int(slot["passes"]), int(slot["memory_kib"]), int(slot["lanes"])
    # The storage is not trusted, and must not be able to exhaust whoever opens it.
    check(passes <= 20 and memory <= 1024 * 1024 and lanes <= 16, "a key slot asks for too much memory or time")
    salt = bytes.fromhex(slot["salt"])
    return Argon2id(salt=salt, length=32, iterations=passes, memory_cost=memory, lanes=lanes).derive(secret)


def from_paper(config: dict[str, Any], paper: str) -> list[bytes]:
    lines = [" ".join(line.upper().split()) for line in paper.splitlines() if line.strip()]
    ours = f"LANFREE REPOSITORY {config['id'].upper()}"
    check(bool(lines) and lines[0] == ours, f"the paper does not begin with {ours}")
    generations = []
    for number, line in enumerate(lines[1:], 1):
        code = line.removeprefix(f"KEY {number}:").replace(" ", "")
        try:
            data = base64.b32decode(code + "=" * (-len(code) % 8))
        except ValueError:
            data = b""
        proof = blake3(bytes.fromhex(config["id"]) + bytes([number]) + data[:32]).digest(3)
        check(len(data) == 35 and data[32:] == proof, f"line {number + 1} of the paper has a typing error")
        generations.append(data[:32])
    check(bool(generations), "the paper has no keys")
    return generations


# ---------------------------------------------------------------------------------------------- the repository


class Repository:
    """An open repository. ``sealed``: whether it is encrypted. Everything that is returned was checked."""

    def __init__(self, root: Path, config: dict[str, Any], generations: list[bytes]) -> None:
        self.root = root
        self.id = bytes.fromhex(config["id"])
        self.chunk_size: int = config["chunk_size"]
        self.sealed = config["sealing"] != "none"
        first = generations[0]
        self.chunk_key = derive(first, "chunk id")
        self.image_key = derive(first, "image digest")
        self.object_key = derive(first, "object digest")
        self.chunk_sealing = [derive(g, "chunk sealing") for g in generations]
        self.object_sealing = [derive(g, "object sealing") for g in generations]
        signing = Ed25519PrivateKey.from_private_bytes(derive(first, "signing key"))
        self.public = signing.public_key().public_bytes_raw()
        check(self.public.hex() == config["public_key"], "these are not the keys of this repository")
        self._files: dict[bytes, BinaryIO] = {}

    def header(self, name: str, data: bytes, magic: bytes, own: bytes) -> int:
        """Check an object's header; the generation that sealed the object."""
        check(len(data) >= HEADER.size, f"{name}: too short")
        got, version, generation, chunk_size, repository, there = HEADER.unpack_from(data)
        check(got == magic, f"{name}: is not what its name says")
        check(version == VERSION, f"{name}: has format version {version}; this program reads version {VERSION}")
        check((chunk_size, repository, there) == (self.chunk_size, self.id, own), f"{name}: is another object")
        check(bool(generation) == self.sealed, f"{name}: is in the clear and should not be, or the other way round")
        check(generation <= len(self.object_sealing), f"{name}: needs key generation {generation}, which is not given")
        return int(generation)

    def cipher(self, own: bytes, generation: int) -> AESGCM:
        """The AES key of one object."""
        return AESGCM(keyed(self.object_sealing[generation - 1], own))

    def unbox(self, name: str, magic: bytes) -> dict[str, Any]:
        """The JSON in a signed box."""
        data = (self.root / name).read_bytes()
        own = blake3(name.encode()).digest(NAME)
        generation = self.header(name, data, magic, own)
        body, signature = data[:-SIGNATURE], data[-SIGNATURE:]
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, body)
            head, body = body[: HEADER.size], body[HEADER.size :]
            if generation:
                plain = self.cipher(own, generation).decrypt(body[:NONCE], body[NONCE:], head)
            else:
                plain = body[:-DIGEST]
                check(keyed(self.object_key, head + plain) == body[-DIGEST:], f"{name}: its digest does not fit")
            content: dict[str, Any] = json.loads(plain)
        except (InvalidSignature, InvalidTag, ValueError):
            raise Trouble(f"{name}: was damaged or changed: its signature or seal does not fit") from None
        return content

    def names(self) -> list[str]:
        """Manifests of all restore points that were not deleted on purpose, by machine and time."""
        return [name for path in sorted(self.root.glob("points/*/*")) if not self._deleted(name := self._name(path))]

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _deleted(self, manifest: str) -> bool:
        stone = "tombstones/" + manifest.removeprefix("points/")
        if not (self.root / stone).exists():
            return False
        try:
            self.unbox(stone, b"LANFTOMB")
        except Trouble as trouble:  # only the repository itself can delete a restore point
            warn(f"{trouble}; the restore point is shown")
            return False
        return True

    def find(self, start: str) -> dict[str, Any]:
        """The manifest of the restore point whose id begins so."""
        names = [name for name in self.names() if name.rpartition("/")[2].startswith(start)]
        check(len(names) == 1, f"{len(names)} restore points begin with {start!r}; 'list' shows them")
        return self.unbox(names[0], b"LANFMANI")

    def pack_file(self, pack: bytes) -> BinaryIO:
        if pack not in self._files:
            if len(self._files) >= OPEN_PACKS:
                self._files.pop(next(iter(self._files))).close()
            self._files[pack] = (self.root / pack_name(pack)).open("rb")
        return self._files[pack]

    def chunk(self, ident: bytes, place: Place, raw: int) -> bytes:
        """The ``raw`` bytes of the chunk with this id, if it is really at the place."""
        pack, offset, word = place
        codec_byte, length = word >> 24, word & 0xFFFFFF
        generation, codec = codec_byte >> 2, codec_byte & 3
        try:
            file = self.pack_file(pack)
            file.seek(offset)
            stored = file.read(length)
            check(len(stored) == length and bool(generation) == self.sealed, "is not there whole")
            if generation:
                cipher = AESGCM(keyed(self.chunk_sealing[generation - 1], ident))
                stored = cipher.decrypt(stored[:NONCE], stored[NONCE:], None)
            if codec == 1:
                check(zstandard.frame_content_size(stored) == raw, "has another length")
                stored = zstandard.ZstdDecompressor().decompress(stored)
        except (OSError, IndexError, InvalidTag, zstandard.ZstdError, ValueError, Trouble) as error:
            raise Trouble(f"{pack_name(pack)} at {offset}: {error or type(error).__name__}") from None
        check(keyed(self.chunk_key, stored, ID) == ident, f"{pack_name(pack)} at {offset}: does not fit its id")
        return stored

    def footer(self, pack: bytes) -> Iterator[tuple[bytes, Place]]:
        """Ids and places of all chunks that a pack says it holds."""
        name = pack_name(pack)
        with (self.root / name).open("rb") as file:
            head = file.read(HEADER.size)
            generation = self.header(name, head, b"LANFPACK", pack)
            size = file.seek(0, 2)
            check(size >= HEADER.size + TRAILER.size, f"{name}: is truncated")
            file.seek(size - TRAILER.size)
            trailer = file.read(TRAILER.size)
            count, start, _, _, _, digest, magic = TRAILER.unpack(trailer)
            length = size - TRAILER.size - start
            fits = length == count * ENTRY.size + (NONCE + TAG if generation else 0)
            check(magic == b"LANFPEND" and fits, f"{name}: does not end like a pack")
            file.seek(start)
            entries = file.read(length)
        blank = trailer[: -DIGEST - 8] + bytes(DIGEST) + magic
        check(
            keyed(self.object_key, head + entries + blank) == digest, f"{name}: the digest of its footer does not fit"
        )
        if generation:
            entries = self.cipher(pack, generation).decrypt(entries[:NONCE], entries[NONCE:], None)
        for ident, offset, word, _ in ENTRY.iter_unpack(entries):
            yield ident, (pack, offset, word)

    def search(self, wanted: set[bytes]) -> dict[bytes, list[Place]]:
        """Every place of some chunks, from the footers of all packs."""
        found: dict[bytes, list[Place]] = {}
        for path in sorted(self.root.glob("packs/*/*")) if wanted else ():
            try:
                for ident, place in self.footer(bytes.fromhex(path.name)):
                    if ident in wanted:
                        found.setdefault(ident, []).append(place)
            except (Trouble, InvalidTag, OSError, ValueError) as error:
                warn(f"{path.name}: {error}; not searched")
        return found


def pack_name(pack: bytes) -> str:
    return f"packs/{pack[:1].hex()}/{pack.hex()}"


def read_config(root: Path) -> dict[str, Any]:
    """What the repository is, as everybody may read it."""
    try:
        config: dict[str, Any] = json.loads((root / "config").read_bytes())
        check(config["format"] == "lanfree-repository", "config: this is no Lanfree repository")
        check(config["version"] == VERSION, f"config: format version {config['version']}; this program reads {VERSION}")
        document = {field: value for field, value in config.items() if field != "digest"}
        check(blake3(json_text(document)).hexdigest() == config["digest"], "config: was damaged or changed by hand")
    except FileNotFoundError:
        raise Trouble(f"{root} has no object 'config': is this a repository's directory?") from None
    except (KeyError, TypeError, ValueError) as error:
        raise Trouble(f"config: is damaged: {error!r}") from None
    return config


# ---------------------------------------------------------------------------------------------- one image


class Index:
    """What the chunks of a disk are, and where. ``image`` is the manifest's entry of the disk."""

    def __init__(self, repository: Repository, image: dict[str, Any]) -> None:
        name = str(image["index"])
        check(bool(re.fullmatch(r"indexes/[0-9a-f]{2}/[0-9a-f]{32}", name)), f"{name} is not the name of an index")
        own = bytes.fromhex(name[-2 * NAME :])
        stored = (repository.root / name).read_bytes()
        data = bytearray(stored[: HEADER.size])
        generation = repository.header(name, stored, b"LANFINDX", own)
        step = BLOCK + TAG if generation else BLOCK
        cipher = repository.cipher(own, generation) if generation else None
        try:
            first = HEADER.size + (SALT if generation else 0)
            salt = stored[HEADER.size : first]
            for number, at in enumerate(range(first, len(stored), step)):
                block = stored[at : at + step]
                nonce = salt + number.to_bytes(NONCE - SALT, "little")
                data += cipher.decrypt(nonce, block, None) if cipher else block
        except InvalidTag:
            raise Trouble(f"{name}: was damaged or truncated: a seal does not fit") from None
        check(len(data) >= HEADER.size + FIELDS.size + DIGEST, f"{name}: is truncated")
        self.size, _, segments, slots, packs, _ = FIELDS.unpack_from(data, HEADER.size)
        self.chunk_size = repository.chunk_size
        table = HEADER.size + FIELDS.size
        self.first_slot = table + 4 * segments
        names = self.first_slot + slots * SLOT
        end = names + packs * NAME
        fits = segments == -(-self.size // (SEGMENT * self.chunk_size)) and end + DIGEST == len(data)
        check(fits, f"{name}: its counts do not fit")
        check(keyed(repository.object_key, memoryview(data)[:end]) == data[end:], f"{name}: its digest does not fit")
        self.data = memoryview(data)
        self.table = struct.unpack_from(f"<{segments}I", data, table)
        check(max(self.table, default=0) <= slots, f"{name}: points behind its end")
        self.packs = [bytes(data[at : at + NAME]) for at in range(names, end, NAME)]
        whole = blake3(struct.pack("<QQ", self.size, self.chunk_size), key=repository.image_key)
        for slot in self.table:
            whole.update(self._slot(slot)[:SLOT_IDS] if slot else bytes(SLOT_IDS))
        check(
            self.size == image["size"] and whole.hexdigest() == image["digest"], f"{name}: is not the manifest's image"
        )

    def _slot(self, slot: int) -> memoryview:
        start = self.first_slot + (slot - 1) * SLOT
        return self.data[start : start + SLOT]

    def chunks(self) -> Iterator[tuple[int, bytes, Place]]:
        """Offset in the disk, id and place of every chunk that is not all zeroes."""
        for segment, slot in enumerate(self.table):
            content = self._slot(slot) if slot else self.data[:0]
            for within, (pack, offset, word) in enumerate(PLACE.iter_unpack(content[SLOT_IDS:])):
                if pack:
                    check(pack <= len(self.packs), "the index refers to a pack that it does not name")
                    ident = bytes(content[within * ID : (within + 1) * ID])
                    yield (segment * SEGMENT + within) * self.chunk_size, ident, (self.packs[pack - 1], offset, word)


class Output:
    """Where a disk goes: a new file, sparse; or standard output, whose holes are written as zeroes."""

    def __init__(self, path: str, size: int) -> None:
        self.file = sys.stdout.buffer if path == "-" else Path(path).open("xb")  # noqa: SIM115  # finish() closes it
        self.size = size
        self.at = 0

    def write(self, offset: int, data: bytes) -> None:
        """Ever further offsets; what is between them is zero."""
        self._advance(offset)
        self.file.write(data)
        self.at += len(data)

    def finish(self) -> None:
        """A file's bytes are durable when this returns: only then may they be called right. Whoever takes standard output
        must see to that himself."""
        self._advance(self.size)
        if self.file is sys.stdout.buffer:
            self.file.flush()
            return
        with self.file:
            self.file.truncate(self.size)
            self.file.flush()
            os.fsync(self.file.fileno())

    def _advance(self, offset: int) -> None:
        if self.file is not sys.stdout.buffer:
            self.file.seek(offset)
        else:
            while self.at < offset:
                self.at += self.file.write(bytes(min(offset - self.at, BLOCK)))
        self.at = offset


def restore(repository: Repository, index: Index, output: Output, *, keep_going: bool) -> int:
    """Write the disk; how many bytes could not be read."""
    missing = {pack for pack in index.packs if not (repository.root / pack_name(pack)).exists()}
    searched = set(missing)
    copies = repository.search(
        {ident for _, ident, place in index.chunks() if place[0] in missing} if missing else set()
    )
    lost = 0
    for offset, ident, place in index.chunks():
        raw = min(index.chunk_size, index.size - offset)
        try:
            data = repository.chunk(ident, place, raw)
        except Trouble as trouble:
            if place[0] not in searched:  # look for everything of that pack at once: damage is rarely alone
                searched.add(place[0])
                copies.update(repository.search({i for _, i, (pack, _, _) in index.chunks() if pack == place[0]}))
            copy = first_whole(repository, ident, copies.get(ident, []), raw)
            if copy is None and not keep_going:
                raise Trouble(f"offset {offset}, {raw} bytes: {trouble}; --keep-going puts zeroes there") from None
            if copy is None:
                warn(f"unreadable: offset {offset}, {raw} bytes: {trouble}")
                lost += raw
                continue
            data = copy
        output.write(offset, data)
    output.finish()
    return lost


def first_whole(repository: Repository, ident: bytes, places: list[Place], raw: int) -> bytes | None:
    for place in places:
        try:
            return repository.chunk(ident, place, raw)
        except Trouble:
            continue
    return None


# ---------------------------------------------------------------------------------------------- the command line


def warn(text: str) -> None:
    print(text, file=sys.stderr)


def list_points(repository: Repository) -> int:
    bad = 0
    for name in repository.names():
        try:
            point = repository.unbox(name, b"LANFMANI")["point"]
        except (Trouble, OSError) as trouble:
            warn(f"unreadable: {trouble}")
            bad += 1
            continue
        disks = ", ".join(f"{image['key']} ({image['size']} bytes)" for image in point["images"])
        print(f"{point['id']}  {point['machine_name']} ({point['machine']})  {point['consistency']}  {disks}")
    return int(bad > 0)


def restore_disk(repository: Repository, arguments: argparse.Namespace) -> int:
    point = repository.find(arguments.point)["point"]
    image = next((image for image in point["images"] if image["key"] == arguments.disk), None)
    if image is None:
        raise Trouble(f"{point['id']} has no disk {arguments.disk!r}; 'list' shows them")
    index = Index(repository, image)
    lost = restore(repository, index, Output(arguments.output, index.size), keep_going=arguments.keep_going)
    where = f"{point['machine_name']}, disk {image['key']}, {index.size} bytes"
    warn(
        f"{where}: {lost} bytes could not be read and are zeroes" if lost else f"{where}: restored, every byte is right"
    )
    return int(lost > 0)


def show_configuration(repository: Repository, arguments: argparse.Namespace) -> int:
    configuration = repository.find(arguments.point)["point"]["configuration"]
    print(configuration["text"])
    if arguments.nvram is not None and configuration["nvram"] is not None:
        arguments.nvram.write_bytes(base64.urlsafe_b64decode(configuration["nvram"]))
    return 0


def open_repository(arguments: argparse.Namespace) -> Repository:
    root = arguments.repository
    config = read_config(root)
    given = arguments.key_file or arguments.passphrase_file or arguments.paper
    if config["sealing"] == "none":
        check(given is None, "it is not encrypted, though a key is given for it: it is not the repository it was")
        return Repository(root, config, [bytes.fromhex(config["key"])])
    try:
        if arguments.paper is not None:
            return Repository(root, config, from_paper(config, arguments.paper.read_text()))
        if arguments.key_file is not None:
            return Repository(root, config, keyring(root, config, "key-file", key_in(arguments.key_file)))
        if arguments.passphrase_file is not None:
            phrase = arguments.passphrase_file.read_bytes().removesuffix(b"\n").removesuffix(b"\r")
        else:
            phrase = getpass.getpass("Passphrase of the repository: ").encode()
        return Repository(root, config, keyring(root, config, "passphrase", phrase))
    except (KeyError, TypeError, ValueError) as error:
        raise Trouble(f"a key slot or the paper is damaged: {error!r}") from None


def parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path)
    keys = parser.add_mutually_exclusive_group()
    for option in ("--key-file", "--passphrase-file", "--paper"):
        keys.add_argument(option, type=Path, metavar="FILE")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list")
    for name in ("show", "configuration", "restore"):
        command = commands.add_parser(name)
        command.add_argument("point")
        if name == "configuration":
            command.add_argument(
                "--nvram", type=Path, metavar="FILE", help="where to put the machine's NVRAM, if it has any"
            )
        if name == "restore":
            command.add_argument("disk")
            command.add_argument("output")
            command.add_argument("--keep-going", action="store_true", help="put zeroes where nothing can be read")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    arguments = parse(words)
    try:
        repository = open_repository(arguments)
        if arguments.command == "list":
            return list_points(repository)
        if arguments.command == "restore":
            return restore_disk(repository, arguments)
        if arguments.command == "configuration":
            return show_configuration(repository, arguments)
        print(json.dumps(repository.find(arguments.point), indent=1))
    except (Trouble, OSError) as trouble:
        warn(f"rescue: {trouble}")
        return 1
    return 0


def source() -> str:
    """This program's own text."""
    return inspect.getsource(sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main())
