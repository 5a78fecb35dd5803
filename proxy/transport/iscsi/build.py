"""Compile the binding of libiscsi: ``python -m proxy.transport.iscsi.build``.

Does nothing when the compiled module was made from the same sources, the same libiscsi header and for the same Python:
a mark of all three is in the module itself. The result is put in place by renaming, since another process may have the
old one mapped.
"""

import hashlib
import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

from cffi import FFI, VerificationError

HERE = Path(__file__).resolve().parent
MODULE = "_libiscsi"
HEADER = "iscsi/iscsi.h"
PACKAGES = "libiscsi-dev gcc python3-dev"


class BuildFailed(Exception):
    """The binding could not be compiled; the message says what to install."""


def target() -> Path:
    """Where the compiled module lies for this Python."""
    return HERE / f"{MODULE}{sysconfig.get_config_var('EXT_SUFFIX')}"


def up_to_date() -> bool:
    """Whether the module is there and was made from what is there now."""
    module = target()
    return module.exists() and _mark(_header()) in module.read_bytes()


def build(*, force: bool = False) -> Path:
    """Compile if needed and return the module's path. Raises ``BuildFailed``."""
    if not force and up_to_date():
        return target()
    header = _header()
    _need_compiler()
    ffi = FFI()
    ffi.cdef((HERE / "shim.h").read_text())
    mark = _mark(header).decode()
    ffi.set_source(
        MODULE,
        f'static const char lf_mark[] __attribute__((used)) = "{mark}";\n#include "shim.c"\n',
        include_dirs=[str(HERE)],
        libraries=["iscsi", "pthread"],
        extra_compile_args=["-O2", "-Wall"],
    )
    with tempfile.TemporaryDirectory(prefix="lanfree-build-") as directory:
        try:
            made = Path(ffi.compile(tmpdir=directory))
        except VerificationError as error:
            raise BuildFailed(f"compiling the libiscsi binding failed: {error}; apt-get install {PACKAGES}") from error
        except ImportError as error:  # Python 3.12 has no distutils of its own
            raise BuildFailed(f"cffi cannot compile: {error}; pip install setuptools") from error
        try:
            _put(made)
        except OSError as error:
            raise BuildFailed(f"{target()} cannot be written: {error.strerror}; run this as its owner") from error
    return target()


def _put(made: Path) -> None:
    """Beside the target first, since renaming is atomic only within one file system."""
    beside = target().with_suffix(f".{os.getpid()}.new")
    try:
        shutil.copyfile(made, beside)
        beside.chmod(0o755)
        beside.replace(target())
    finally:
        beside.unlink(missing_ok=True)


def _header() -> Path:
    candidates = [Path("/usr/local/include"), Path("/usr/include")]
    for directory in candidates:
        if (directory / HEADER).exists():
            return directory / HEADER
    raise BuildFailed(f"{HEADER} of libiscsi is missing: apt-get install libiscsi-dev")


def _need_compiler() -> None:
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        raise BuildFailed("no C compiler: apt-get install gcc")
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        raise BuildFailed("Python.h is missing: apt-get install python3-dev")


def _mark(header: Path) -> bytes:
    digest = hashlib.sha256(sysconfig.get_config_var("EXT_SUFFIX").encode())
    for source in (header, HERE / "shim.h", HERE / "shim.c", Path(__file__)):
        digest.update(source.read_bytes())
    return f"lanfree-binding:{digest.hexdigest()}".encode()


def main() -> int:
    """Build, say what was done, and return the exit code."""
    try:
        fresh = up_to_date()
        path = build()
    except BuildFailed as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{path.name}: {'up to date' if fresh else 'built'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
