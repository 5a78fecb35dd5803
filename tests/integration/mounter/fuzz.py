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


def xfs(path: Path) -> Path:
    tool("mkfs.xfs", "-q", "-f", blank(path, 320 * MiB))
    return path


def btrfs(path: Path) -> Path:
    tool("mkfs.btrfs", "-q", "-f", blank(path, 128 * MiB))
    return path


def lvm(path: Path) -> Path:
    """A logical volume with a file system in it, made by an appliance: the machine's own kernel is left out of it."""
    import guestfs  # noqa: PLC0415  only where the module is required

    os.environ["LIBGUESTFS_BACKEND_SETTINGS"] = "force_tcg"
    g = guestfs.GuestFS(python_return_dict=True)
    g.set_backend("direct")
    g.add_drive_opts(str(blank(path, 16 * MiB)), format="raw")
    g.launch()
    g.pvcreate("/dev/sda")
    g.vgcreate("damaged", ["/dev/sda"])
    g.lvcreate_free("data", "damaged", 100)
    g.mkfs("ext4", "/dev/damaged/data")
    g.mount("/dev/damaged/data", "/")
    for number in range(20):
        g.write(f"/file {number}", f"content {number}")
    g.shutdown()
    g.close()
    return path


FOR_APPLIANCES: Mapping[str, Callable[[Path], Path]] = {"xfs": xfs, "btrfs": btrfs, "lvm": lvm}


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes to put into an image instead of its own."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Sectors:
    """Offsets of sectors that hold structure; ``hot``: where everything begins."""

    all: list[int]
    hot: list[int]


def structured(image: bytes, of_files: Sequence[bytes]) -> Sectors:
    """What is neither empty nor the beginning of a file. Hot are the first ones, and the records of NTFS."""
    starts = tuple(content[:4] for content in of_files if content)
    found: list[int] = []
    records: list[int] = []
    for at in range(0, len(image), SECTOR):
        sector = image[at : at + SECTOR]
        if sector == sector[:1] * SECTOR or sector.startswith(starts):
            continue
        found.append(at)
        if sector.startswith((b"FILE", b"INDX")):
            records.append(at)
    return Sectors(found, records + found[: max(len(found) // 20, 8)])


def damages(image: bytes, sectors: Sectors, seed: str) -> list[Damage]:
    """One to eight, of the kinds that hurt: the hot sectors are hit as often as all others."""
    choice = random.Random(seed)
    made: list[Damage] = []
    for _ in range(choice.choice((1, 1, 2, 4, 8))):
        sector = choice.choice(sectors.hot if choice.random() < 0.5 else sectors.all)
        at = sector + choice.randrange(0, SECTOR, choice.choice((1, 2, 4)))
        was = image[at : at + 8]
        data = choice.choice(
            (
                bytes([was[0] ^ (1 << choice.randrange(8))]),
                b"\xff" * choice.choice((1, 2, 4, 8)),
                bytes(choice.choice((1, 2, 4, 8))),
                choice.randbytes(choice.choice((1, 2, 4, 8))),
                (1 << choice.randrange(64)).to_bytes(8, "little"),
                image[(other := choice.choice(sectors.all)) : other + SECTOR],
            )
        )
        made.append(Damage(at, data[: len(image) - at]))
    return made
