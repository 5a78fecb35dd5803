"""Does hardware virtualisation really work here? Decided by running a guest, not by looking for ``/dev/kvm``.

A device node can be present while the guest aborts at its first instruction or crawls (nested virtualisation that is
emulated below). So a boot sector of seven bytes is run; it ends QEMU with a known exit code. What was found out holds
until the machine is booted again or QEMU is replaced, so it is kept for root's other processes.
"""

import json
import os
import shutil
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from proxy import command
from proxy.errors import ToolFailed

# mov al, 0x10 / out 0xf4, al / hlt / jmp: isa-debug-exit ends QEMU with (0x10 << 1) | 1.
_BOOT_SECTOR = b"\xb0\x10\xe6\xf4\xf4\xeb\xfd".ljust(510, b"\0") + b"\x55\xaa"
_PROOF = 0x21

# Software emulation takes 0.2 s for the trial. A "hardware" guest that needs more than two seconds is emulated further
# down and slower than TCG; a smaller limit could misjudge a real one on a busy machine.
_LIMIT = 2.0

_QEMU = "qemu-system-x86_64"
_KEPT = Path("/run/lanfree-kvm.json")


@cache
def kvm_works() -> tuple[bool, str]:
    """Whether KVM guests run, and one line for people that says how it was found out. Tried once between two boots."""
    if (kept := _kept()) is not None:
        return kept
    found = _try()
    if os.geteuid() == 0:  # nobody else may say what root's processes believe
        with suppress(OSError):
            draft = _KEPT.with_suffix(f".{os.getpid()}")
            draft.write_text(json.dumps({"of": _circumstances(), "works": found[0], "how": found[1]}))
            draft.replace(_KEPT)
    return found


def _kept() -> tuple[bool, str] | None:
    try:
        kept = json.loads(_KEPT.read_text())
        return (bool(kept["works"]), str(kept["how"])) if kept["of"] == _circumstances() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _circumstances() -> str:
    """Changes whenever the answer could."""
    qemu = shutil.which(_QEMU)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {Path('/dev/kvm').exists()} {Path(qemu).stat().st_mtime_ns if qemu else 0}"


def _try() -> tuple[bool, str]:
    if not Path("/dev/kvm").exists():
        return False, "there is no /dev/kvm (no hardware virtualisation, or the kvm module is not loaded)"
    with tempfile.TemporaryDirectory(prefix="lanfree-kvm-") as directory:
        image = Path(directory) / "boot.img"
        image.write_bytes(_BOOT_SECTOR)
        try:
            trial = command.run(_trial(image), timeout=_LIMIT, check=False)
        except ToolFailed as error:
            return False, f"a trial guest with KVM {error.outcome}"
    if trial.code != _PROOF:
        why = (trial.stderr.strip().splitlines() or ["no message"])[-1]
        return False, f"a trial guest with KVM ended with {trial.code}: {why}"
    return True, "a trial guest ran with KVM"


def _trial(image: Path) -> list[str]:
    machine = ["-accel", "kvm", "-machine", "pc", "-m", "16", "-nodefaults", "-display", "none", "-no-reboot"]
    leave = ["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
    return [_QEMU, *machine, *leave, "-drive", f"file={image},format=raw,if=ide"]
