"""Damaged images: small file systems, and the same damage again for the same number."""

import os
import random
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy.units import MiB

SECTOR = 512


def tool(*words: str | Path, stdin: bytes = b"") -> None:
    subprocess.run([str(w) for w in words], check=True, timeout=60, capture_output=True, input=stdin)


def blank(path: Path, size: int) -> Path:
    path.touch()
    os.truncate(path, size)
    return path


def tree(at: Path) -> Path:
    """Deep, wide, linked, sparse, fragmented enough to have extents."""
    for name in ("etc", "deep/er/and/deeper", "many"):
        (at / name).mkdir(parents=True)
    for number in range(150):
        (at / f"many/a file with quite a long name {number:04}").write_bytes(b"%d" % number)
    (at / "etc/fstab").write_text("/dev/sda / ext4 defaults 0 1\n")
    (at / "deep/er/link").symlink_to("../../etc/fstab")
    (at / "deep/er/long link").symlink_to("x" * 200)
    os.link(at / "etc/fstab", at / "deep/hard")
    with (at / "deep/er/sparse").open("wb") as file:
        for number in range(12):
            file.seek(number * 200_000)
            file.write(b"piece %d" % number)
    os.setxattr(at / "etc/fstab", "user.comment", b"c" * 300)
    return at


def ext(path: Path, root: Path, kind: str = "ext4", size: int = 8 * MiB) -> Path:
    seed = ("-U", "11111111-2222-3333-4444-555555555555", "-E", "hash_seed=11111111-2222-3333-4444-555555555556")
    tool("mke2fs", "-q", "-t", kind, *seed, "-d", root, blank(path, size))
    return path


def ntfs(path: Path, root: Path) -> Path:
    tool("mkntfs", "-q", "-F", "-Q", "-L", "WIN", blank(path, 8 * MiB))
    files = sorted((root / "many").iterdir())[:30]
    for number, file in enumerate(files):
        tool("ntfscp", "-f", path, file, f"file {number}.txt")
    tool("ntfscp", "-f", path, root / "deep/er/sparse", "larger.bin")
    return path


def fat(path: Path, root: Path, size: int = 8 * MiB) -> Path:
    tool("mkfs.vfat", "-i", "1234abcd", blank(path, size))
    for name in ("etc", "many"):
        tool("mcopy", "-s", "-i", path, root / name, "::/")
    return path


def gpt(path: Path, root: Path) -> Path:
    """Two file systems behind a partition table."""
    blank(path, 20 * MiB)
    script = b"label: gpt\nstart=2048, size=16384\nstart=20480, size=16384\n"
    tool("sfdisk", "--quiet", path, stdin=script)
    parts = (2048, ext(path.with_suffix(".0"), root)), (20480, fat(path.with_suffix(".1"), root))
    with path.open("r+b") as disk:
        for start, part in parts:
            disk.seek(start * SECTOR)
            disk.write(part.read_bytes())
            part.unlink()
    return path


IMAGES: Mapping[str, Callable[[Path, Path], Path]] = {"ext4": ext, "ntfs": ntfs, "vfat": fat, "gpt": gpt}


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes to put into an image instead of its own."""

    offset: int
    data: bytes


def structured(image: bytes, of_files: Sequence[bytes]) -> list[int]:
    """Sectors that hold something, most of which is structure: those of files begin with what the files begin with."""
    starts = tuple(content[:4] for content in of_files if content)
    return [
        at
        for at in range(0, len(image), SECTOR)
        if image[at : at + SECTOR].strip(b"\0") and not image[at : at + SECTOR].startswith(starts)
    ]


def damages(image: bytes, sectors: Sequence[int], seed: str) -> list[Damage]:
    """One to eight, of the kinds that hurt: the first sectors, where everything begins, are hit as often as all others."""
    choice = random.Random(seed)
    made: list[Damage] = []
    for _ in range(choice.choice((1, 1, 2, 4, 8))):
        sector = choice.choice(sectors[: max(len(sectors) // 20, 8)] if choice.random() < 0.5 else sectors)
        at = sector + choice.randrange(0, SECTOR, choice.choice((1, 2, 4)))
        was = image[at : at + 8]
        data = choice.choice(
            (
                bytes([was[0] ^ (1 << choice.randrange(8))]),
                b"\xff" * choice.choice((1, 2, 4, 8)),
                bytes(choice.choice((1, 2, 4, 8))),
                choice.randbytes(choice.choice((1, 2, 4, 8))),
                (1 << choice.randrange(64)).to_bytes(8, "little"),
                image[(other := choice.choice(sectors)) : other + SECTOR],
            )
        )
        made.append(Damage(at, data[: len(image) - at]))
    return made
