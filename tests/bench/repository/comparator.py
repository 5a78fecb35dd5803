"""Compiles ``backup.c`` with what it needs."""

import json
import tempfile
from pathlib import Path

from proxy import command
from proxy.errors import ToolFailed

SOURCE = Path(__file__).with_name("backup.c")

# The version whose C sources are taken; they lie in the Rust crate, and nothing of Rust is compiled.
BLAKE3 = "1.8.2"
ASSEMBLY = ("sse2", "sse41", "avx2", "avx512")
MANIFEST = f"""[package]
name = "sources"
version = "0.0.0"
edition = "2021"

[dependencies]
blake3 = "={BLAKE3}"
"""


def build(tools: Path) -> Path:
    """The compiled comparator in ``tools``; made anew when ``backup.c`` is newer. Raises ``ToolFailed``."""
    program = tools / "backup"
    if program.exists() and program.stat().st_mtime > SOURCE.stat().st_mtime:
        return program
    tools.mkdir(parents=True, exist_ok=True)
    blake3 = _blake3()
    sources = [SOURCE, *(blake3 / f"blake3{part}.c" for part in ("", "_dispatch", "_portable"))]
    assembly = [blake3 / f"blake3_{kind}_x86-64_unix.S" for kind in ASSEMBLY]
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-pthread", f"-I{blake3}"]
    command.run(["cc", *flags, "-o", program, *sources, *assembly, "-lnbd", "-lzstd", "-lcrypto"], timeout=120)
    return program


def _blake3() -> Path:
    """The directory with BLAKE3's C sources, fetched as a crate. Raises ``ToolFailed``."""
    with tempfile.TemporaryDirectory(prefix="lanfree-bench-") as scratch:
        folder = Path(scratch)
        (folder / "src").mkdir()
        (folder / "src" / "lib.rs").touch()
        (folder / "Cargo.toml").write_text(MANIFEST)
        manifest = ["--manifest-path", str(folder / "Cargo.toml")]
        command.run(["cargo", "fetch", *manifest], timeout=120)
        told = command.run(["cargo", "metadata", "--offline", "--format-version", "1", *manifest], timeout=60).stdout
    for package in json.loads(told)["packages"]:
        if package["name"] == "blake3":
            return Path(package["manifest_path"]).parent / "c"
    raise ToolFailed("cargo fetch", "brought no blake3", "backups cannot be compared with C")
