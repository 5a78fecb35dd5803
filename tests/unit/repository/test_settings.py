"""The config object: readable, self-checking, and refused when it comes from the future."""

import json
from typing import Any

import pytest
from blake3 import blake3

from proxy.errors import FormatError
from proxy.repository import settings
from proxy.repository.settings import Settings


def made(key: bytes | None = b"k" * 32) -> Settings:
    return Settings(settings.new_id(), "2026-01-01T00:00:00+00:00", b"p" * 32, key)


def changed(**fields: Any) -> bytes:
    """A config whose digest fits its changed fields."""
    document = {**json.loads(settings.encode(made())), **fields}
    document.pop("digest")
    text = (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()
    document["digest"] = blake3(text).hexdigest()
    return json.dumps(document).encode()


@pytest.mark.parametrize("key", [None, b"k" * 32], ids=["sealed", "clear"])
def test_settings_survive_the_way_to_storage_and_back(key: bytes | None) -> None:
    known = made(key)
    assert settings.decode(settings.encode(known)) == known
    assert known.sealed is (key is None)


def test_the_config_of_a_sealed_repository_has_no_key() -> None:
    document = json.loads(settings.encode(made(None)))
    assert "key" not in document
    assert document["sealing"] == "aes-256-gcm"


def test_two_repositories_have_different_ids() -> None:
    assert made().id != made().id


def test_the_key_is_not_shown_by_accident() -> None:
    known = made()
    assert known.key is not None
    assert known.key.hex() not in repr(known)
    assert repr(known.key) not in repr(known)


def test_a_repository_from_the_future_is_refused_with_a_clear_message() -> None:
    with pytest.raises(FormatError, match=r"format version 3; this software knows version 2: update it"):
        settings.decode(changed(version=3))
    with pytest.raises(FormatError, match="earlier ones were never released"):
        settings.decode(changed(version=1))


def test_every_flipped_byte_is_found() -> None:
    data = settings.encode(made())
    assert settings.decode(data)
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1
        try:
            survived = settings.decode(bytes(damaged))
        except FormatError:
            continue
        assert bytes(damaged[place : place + 1]).isspace(), place  # white space that means the same JSON
        assert survived == settings.decode(data)


@pytest.mark.parametrize(
    "fields",
    [
        {"version": "2"},
        {"version": 0},
        {"format": "something-else"},
        {"sealing": "aes"},
        {"codec": "lz4"},
        {"chunk_size": 3 * 1024},
        {"chunk_size": 1 << 30},
        {"chunk_size": None},
        {"pack_size": 1},
        {"level": 99},
        {"key": "00"},
        {"key": None},
        {"public_key": "00"},
        {"id": "zz"},
    ],
    ids=str,
)
def test_what_this_software_cannot_handle_is_refused(fields: dict[str, Any]) -> None:
    assert settings.decode(changed())
    with pytest.raises(FormatError):
        settings.decode(changed(**fields))


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[]", b"{}", b"null"])
def test_what_is_no_configuration_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        settings.decode(data)
