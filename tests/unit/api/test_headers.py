"""Names of files in headers."""

from urllib.parse import unquote

import pytest

from api.headers import attachment


def name_in(header: str) -> str:
    """As a browser would keep it: the extended name counts where there is one (RFC 6266, 4.3)."""
    return unquote(header.partition("filename*=UTF-8''")[2], errors="strict")


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("report.txt", "report.txt"),
        ("/etc/passwd", "passwd"),
        ("C:\\Users\\x\\mail.pst", "mail.pst"),
        ('a"b;c.txt', 'a"b;c.txt'),
        ("Überblick \u2013 2026.pdf", "Überblick \u2013 2026.pdf"),
        ("日本.txt", "日本.txt"),
        ("a\r\nSet-Cookie: x=y.txt", "aSet-Cookie: x=y.txt"),
        ("nul\0.txt", "nul.txt"),
        ("gnp\u202e.exe", "gnp.exe"),
        ("bad\udcff.txt", "bad.txt"),
        ("..", "download"),
        ("", "download"),
        ("/", "download"),
    ],
)
def test_a_file_keeps_its_name_and_nothing_of_it_leaves_the_header(name: str, kept: str) -> None:
    header = attachment(name)
    assert header.isascii()
    assert header.isprintable()
    assert name_in(header) == kept
    plain = header.partition('filename="')[2].partition('"')[0]
    assert plain
    assert not set(plain) & set("%;\\/")


def test_a_name_is_cut_where_file_systems_do() -> None:
    assert len(name_in(attachment("x" * 5000))) == 200
