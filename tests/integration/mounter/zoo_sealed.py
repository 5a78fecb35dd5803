"""Encrypted volumes made without a kernel device: their headers by cryptsetup or by hand, their sectors encrypted here.

BitLocker: no free tool makes one, so ``bitlocker`` writes the metadata itself, after the description in libbde's
"BitLocker Drive Encryption (BDE) format" and what cryptsetup reads; the reader in the tests is cryptsetup.
"""

import hashlib
import os
import struct
import subprocess
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

SECTOR = 512
MiB = 1 << 20


def encrypt_sectors(key: bytes, data: bytes, first: int = 0) -> bytes:
    """AES-XTS, a tweak a sector of 512 bytes ("plain64"), counted from ``first``. Sectors of zeroes stay zeroes: nobody
    reads them, and the image stays sparse."""
    out = bytearray(len(data))
    for start in range(0, len(data), SECTOR):
        sector = data[start : start + SECTOR]
        if any(sector):
            tweak = (first + start // SECTOR).to_bytes(16, "little")
            encryptor = Cipher(algorithms.AES(key), modes.XTS(tweak)).encryptor()
            out[start : start + SECTOR] = encryptor.update(sector)
    return bytes(out)


def luks(path: Path, kind: str, secret: bytes, content: bytes, *options: str) -> str:
    """Make a LUKS volume in a file; returns its UUID. ``kind``: ``luks1`` or ``luks2``; cheap key derivation."""
    key, passphrase = path.with_suffix(".volume-key"), path.with_suffix(".passphrase")
    key.write_bytes(os.urandom(64))
    passphrase.write_bytes(secret)
    offset = {"luks1": 2 * MiB, "luks2": 16 * MiB}[kind]
    path.touch()
    os.truncate(path, offset + len(content))
    cheap = options or ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
    if kind == "luks2":
        cheap = (*cheap, "--sector-size", str(SECTOR))
    words = ["cryptsetup", "-q", "luksFormat", "--type", kind, "--key-size", "512", *cheap]
    words += ["--volume-key-file", str(key), str(path), str(passphrase)]
    subprocess.run(words, check=True, timeout=60, capture_output=True)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(encrypt_sectors(key.read_bytes(), content))
    said = subprocess.run(["cryptsetup", "luksUUID", str(path)], check=True, timeout=60, capture_output=True)
    return said.stdout.decode().strip()


def recovery_key(parts: bytes) -> str:
    """16 bytes as Windows prints them: 8 numbers, each a multiple of 11."""
    return "-".join(f"{number * 11:06d}" for number in struct.unpack("<8H", parts))


def _stretched(initial: bytes, salt: bytes) -> bytes:
    last = bytes(32)
    for count in range(0x100000):
        last = hashlib.sha256(last + initial + salt + count.to_bytes(8, "little")).digest()
    return last


def _entry(kind: int, value: int, data: bytes) -> bytes:
    return struct.pack("<HHHH", 8 + len(data), kind, value, 1) + data


def _sealed_key(by: bytes, method: int, key: bytes) -> bytes:
    """An "AES-CCM encrypted key" property: nonce, tag, ciphertext of a header of 12 bytes and the key."""
    nonce = os.urandom(12)
    sealed = AESCCM(by, tag_length=16).encrypt(nonce, struct.pack("<IHHI", 12 + len(key), 1, 1, method) + key, None)
    return nonce + sealed[-16:] + sealed[:-16]


def bitlocker(path: Path, parts: bytes, content: bytes) -> None:
    """Make a BitLocker volume (AES-XTS 128) that a recovery key opens. ``content`` must leave all from 12 MiB on unused."""
    at, header = (12 * MiB, 16 * MiB, 20 * MiB), 16
    size, key, master, salt = 24 * MiB, os.urandom(32), os.urandom(32), os.urandom(16)
    guid = os.urandom(16)
    stretched = _stretched(hashlib.sha256(parts).digest(), salt)
    recovery = _entry(0, 3, struct.pack("<I", 0x1000) + salt) + _entry(0, 5, _sealed_key(stretched, 0x2003, master))
    entries = _entry(2, 8, os.urandom(16) + bytes(8) + struct.pack("<HH", 0, 0x0800) + recovery)
    entries += _entry(3, 5, _sealed_key(master, 0x8004, key))
    moved = at[0] + 64 * 1024  # where the volume's first sectors went: behind the first metadata
    entries += _entry(0xF, 0xF, struct.pack("<QQ", moved, header * SECTOR))
    block = b"-FVE-FS-" + struct.pack("<HHHHQII3QQ", 64, 2, 4, 4, size, 0, header, *at, moved)
    block += struct.pack("<IIII", 48 + len(entries), 1, 48, 48 + len(entries)) + guid
    block += struct.pack("<IHHQ", 1, 0x8004, 0, 133_000_000_000_000_000)
    start = bytearray(SECTOR)
    start[:11] = b"\xeb\x58\x90-FVE-FS-"
    struct.pack_into("<HB", start, 11, SECTOR, 8)
    start[160:176] = bytes.fromhex("3bd66749292ed84a8399f6a339e3d001")  # names the layout of this header
    struct.pack_into("<3Q", start, 176, *at)
    start[510:] = b"\x55\xaa"
    with path.open("wb") as file:
        file.truncate(size)
        file.write(encrypt_sectors(key, content))
        file.seek(0)
        file.write(start)
        file.seek(moved)
        file.write(encrypt_sectors(key, content[: header * SECTOR], moved // SECTOR))
        for offset in at:
            file.seek(offset)
            file.write(block + entries)
