"""Settings and credentials of an S3 store."""

from pathlib import Path

import pytest

from proxy.errors import ConfigurationError, FormatError
from proxy.repository.stores.s3_settings import S3Settings, read_credentials

FILE = "[default]\naws_access_key_id = AKIA\naws_secret_access_key = hush hush\n\n[site]\naws_access_key_id = B\n"


def credentials_file(directory: Path, text: str = FILE, mode: int = 0o600) -> Path:
    path = directory / "credentials"
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://key:secret@store.example",
        "https://key@store.example",
        "ftp://store.example",
        "store.example",
        "http://",
    ],
)
def test_an_endpoint_that_is_none_or_holds_credentials_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigurationError) as told:
        S3Settings("bucket", endpoint)
    assert "key:secret" not in str(told.value)


@pytest.mark.parametrize("bucket", ["", "a", "a/b", "../b", "a b", "-a"])
def test_a_bucket_is_a_name(bucket: str) -> None:
    with pytest.raises(ConfigurationError, match="bucket"):
        S3Settings(bucket)


@pytest.mark.parametrize("prefix", ["/a", "a/", "a//b", "../a", ".a"])
def test_a_prefix_is_a_folder(prefix: str) -> None:
    with pytest.raises(FormatError):
        S3Settings("bucket", prefix=prefix)


def test_a_place_is_named_for_people() -> None:
    assert S3Settings("backup").place == "s3://backup"
    assert (
        S3Settings("backup", "https://s3.example:9000", prefix="site/a").place
        == "s3://backup/site/a at https://s3.example:9000"
    )


def test_credentials_come_from_the_named_file_and_section(tmp_path: Path) -> None:
    path = credentials_file(tmp_path, FILE + "aws_secret_access_key = other\naws_session_token = token\n")
    found = read_credentials(S3Settings("bucket", credentials_file=path))
    assert found is not None
    assert (found.key, found.secret, found.token) == ("AKIA", "hush hush", None)
    other = read_credentials(S3Settings("bucket", credentials_file=path, profile="site"))
    assert other is not None
    assert (other.key, other.secret, other.token) == ("B", "other", "token")
    assert read_credentials(S3Settings("bucket")) is None
    assert "hush" not in repr(found)


@pytest.mark.parametrize(
    ("text", "mode", "profile", "why"),
    [
        (FILE, 0o644, "default", "others can read"),
        (FILE, 0o600, "site", "no section"),
        (FILE, 0o600, "none", "no section"),
        ("hush hush", 0o600, "default", "no section"),
        ("[default]\nhush", 0o600, "default", "no section"),
    ],
)
def test_credentials_that_cannot_be_used_are_told_without_their_content(
    tmp_path: Path, text: str, mode: int, profile: str, why: str
) -> None:
    path = credentials_file(tmp_path, text, mode)
    with pytest.raises(ConfigurationError, match=why) as told:
        read_credentials(S3Settings("bucket", credentials_file=path, profile=profile))
    assert "hush" not in f"{told.value}{told.value.hint}"
    assert str(path) in str(told.value)


def test_a_credentials_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_credentials(S3Settings("bucket", credentials_file=tmp_path / "none"))
