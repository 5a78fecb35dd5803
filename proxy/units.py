"""Sizes in bytes and how they are shown to people. Binary units throughout, as storage arrays and QEMU count."""

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB
TiB = 1024 * GiB


def format_size(count: int) -> str:
    """Bytes as people read them: ``format_size(1536) == '1.5 KiB'``. Exact below one KiB."""
    for unit, name in ((TiB, "TiB"), (GiB, "GiB"), (MiB, "MiB"), (KiB, "KiB")):
        if abs(count) >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} B"


def format_rate(count: int, seconds: float) -> str:
    """Bytes over seconds, or a dash when no time has passed."""
    return f"{format_size(int(count / seconds))}/s" if seconds > 0 else "-"


def align_down(value: int, block: int) -> int:
    """The largest multiple of ``block`` that is not above ``value``."""
    return value - value % block


def align_up(value: int, block: int) -> int:
    """The smallest multiple of ``block`` that is not below ``value``."""
    return -(-value // block) * block
