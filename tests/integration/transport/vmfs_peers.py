"""Other readers of VMFS, and how a volume is compared with what they read of it."""

import hashlib
import json
import os
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from proxy.command import run
from proxy.errors import TransportRefused
from proxy.transport.raw import FileSource
from proxy.transport.vmfs import Subject, Vmfs, VmfsReason, open_datastore
from proxy.transport.vmfs.addresses import DATA
from proxy.transport.vmfs.fs_format import FileDescriptor, FileType
from proxy.units import GiB, MiB

READER = Path(__file__).with_name("dissect_reader.py")
DISSECT = ("dissect.vmfs==3.13", "dissect.cstruct==4.7", "dissect.util==3.24")
SUBJECT = Subject("san", "scsi0:0")

WHOLE = 256 * MiB
"""Files up to here are compared byte by byte, larger ones in all their data and in samples of their holes."""
SAMPLES = 200
LONGEST_RUN = 64 * MiB

Ranges = Mapping[str, Sequence[tuple[int, int]]]
Reading = dict[str, tuple[int, int, str | None]]


def oracle_interpreter(directory: Path) -> Path:
    """A Python of its own with dissect.vmfs, made in ``directory`` the first time."""
    python = directory / "venv" / "bin" / "python"
    if not (directory / "ready").exists():
        run([sys.executable, "-m", "venv", "--clear", directory / "venv"], timeout=120)
        run([python, "-m", "pip", "install", "--quiet", "--no-deps", *DISSECT], timeout=300)
        (directory / "ready").touch()
    return python


def dissect_reading(
    python: Path, images: Sequence[Path], ranges: Ranges, *, start: int = 0, managed: bool = True
) -> Reading:
    """Path -> (type, size, SHA-256 of the ranges) of all that dissect.vmfs finds in the partition at ``start``."""
    names = [str(image) for image in images]
    asked = json.dumps({"images": names, "start": start, "managed": managed, "ranges": ranges}).encode()
    answer = json.loads(run([python, READER], stdin=asked, timeout=1800).stdout)
    return {path: (kind, size, digest) for path, (kind, size, digest) in answer.items()}


def datastore(images: Sequence[Path]) -> Vmfs:
    """The volume on these image files, through our reader."""
    return open_datastore([FileSource(os.open(image, os.O_RDONLY), str(image)) for image in images], SUBJECT)


def our_reading(fs: Vmfs) -> tuple[Reading, Ranges]:
    """As ``dissect_reading`` by our own code, and the ranges that large files were compared in."""
    reading: Reading = {}
    ranges: dict[str, list[tuple[int, int]]] = {}
    for path, file in fs.walk(system=True):
        digest = None
        if file.type is FileType.RAW_DEVICE:
            assert _refusal(fs, file) == VmfsReason.RAW_DEVICE
        elif file.type is not FileType.DIRECTORY:
            wanted = [(0, file.size)] if file.size <= WHOLE else _ranges(fs, file)
            if file.size > WHOLE:
                ranges[path] = wanted
            digest = _digest(fs, file, wanted)
        reading[path] = (int(file.type), file.size, digest)
    return reading, ranges


def _refusal(fs: Vmfs, file: FileDescriptor) -> str:
    try:
        fs.map(file)
    except TransportRefused as refusal:
        return refusal.reason
    return ""


def _ranges(fs: Vmfs, file: FileDescriptor) -> list[tuple[int, int]]:
    """All data with a MiB of what is around it, both ends, what each pointer block begins with, and random samples."""
    near = [(0, MiB), (file.size - MiB, file.size)]
    for found in fs.map(file).runs(0, file.size):
        if found.kind == DATA:
            low, high = found.start - MiB, found.end + MiB
            near += [(low, min(high, low + LONGEST_RUN)), (max(low, high - LONGEST_RUN), high)]
    span = 8 * GiB if fs.geometry.pointer_size == 8 else GiB
    chance = random.Random(file.size)
    starts = [chance.randrange(file.size) for _ in range(SAMPLES)]
    starts += chance.sample(range(0, file.size, span), min(SAMPLES, -(-file.size // span)))
    near += [(start, start + 4096) for start in starts]
    cut = [(max(0, low), min(high, file.size)) for low, high in near]
    return [(low, high - low) for low, high in sorted(cut) if low < high]


def _digest(fs: Vmfs, file: FileDescriptor, ranges: Sequence[tuple[int, int]]) -> str:
    digest = hashlib.sha256()
    blocks = fs.map(file)
    for start, length in ranges:
        position = start
        while position < start + length:
            end = min(position + 4 * MiB, start + length)
            for found in blocks.runs(position, end):
                buffer = bytearray(found.end - found.start)
                if found.kind == DATA:
                    fs.volume.read_into(found.offset, memoryview(buffer))
                digest.update(buffer)
            position = end
    return digest.hexdigest()
