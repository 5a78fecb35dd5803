"""The secrets that open a repository, as files hold them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance import storage
from proxy.errors import ConfigurationError

Lanfree = Callable[..., tuple[int, Any, str]]


def private(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("content", [bytes(range(128, 160)), b"\x00" * 32, b"", b"12ab\n", "ä".encode() * 64])
def test_what_is_no_key_file_is_called_so(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigurationError) as caught:
        storage.key_in(private(tmp_path / "key", content))
    assert "is not a key file: 64 hexadecimal digits" in caught.value.message


def test_a_key_file_is_what_init_writes(tmp_path: Path) -> None:
    storage.write_key_file(tmp_path / "key")
    assert storage.key_in(tmp_path / "key") is not None


def test_a_passphrase_of_random_bytes_is_refused_as_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no text in UTF-8"):
        storage.passphrase_in(private(tmp_path / "passphrase", bytes(range(128, 160))))


def test_who_has_lost_an_appliance_is_not_told_to_make_a_new_repository(lanfree: Lanfree, tmp_path: Path) -> None:
    code, document, _ = lanfree("bootstrap", "--from-repository", str(tmp_path / "not-mounted"), "--unencrypted")
    assert (code, document["error"]["code"]) == (5, "repository-unavailable")
    assert "mounted" in document["error"]["hint"]
    assert "init" not in json.dumps(document)
