"""Where the databases are, by configuration."""

from pathlib import Path

import pytest

from appliance import databases
from appliance.config import Settings, parse
from proxy.errors import ConfigurationError

URL = "postgresql+psycopg://lanfree@db/lanfree?sslmode=verify-full"


def settings(tmp_path: Path, text: str = "") -> Settings:
    return parse(f'[state]\ndirectory = "{tmp_path}"\n{text}', tmp_path / "lanfree.toml")


def test_without_configuration_they_are_files_of_the_state_directory(tmp_path: Path) -> None:
    known = settings(tmp_path)
    assert databases.catalog_url(known) == f"sqlite:///{tmp_path}/catalog.db"
    assert databases.workflow_url(known) == f"sqlite:///{tmp_path}/workflows.db"
    assert databases.password(known) is None
    assert databases.workflow_engine(known) is None
    assert known.database.history_days == 400


def test_one_url_is_all_of_them(tmp_path: Path) -> None:
    known = settings(tmp_path, f'[database]\nurl = "{URL}"')
    assert databases.catalog_url(known) == databases.workflow_url(known) == URL


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('url = "postgresql+psycopg://lanfree:topsecret@db/lanfree"', "password_file"),
        ('url = "postgresql+psycopg://lanfree@db/lanfree?password=topsecret"', "password_file"),
        ('url = "mysql://lanfree@db/lanfree"', "USER@HOST"),
        ('url = "postgresql+psycopg://lanfree@db"', "DATABASE"),
        ('password_file = "/etc/lanfree/password"', "needs a url"),
    ],
)
def test_a_database_that_cannot_be_meant_is_refused(text: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=why) as caught:
        settings(tmp_path, f"[database]\n{text}")
    assert "database" in str(caught.value)
    assert "topsecret" not in f"{caught.value}{caught.value.hint}"


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [
        (b"secret\n", 0o644, "may read"),
        (b"\n", 0o600, "empty"),
        (b"", 0o600, "empty"),
        (b"\xff\xfe", 0o600, "UTF-8"),
        (None, 0o600, "No such file"),
    ],
)
def test_a_password_file_that_cannot_be_used_is_told(
    content: bytes | None, mode: int, why: str, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
        file.chmod(mode)
    ask = databases.password(settings(tmp_path, f'[database]\nurl = "{URL}"\npassword_file = "{file}"'))
    assert ask is not None
    with pytest.raises(ConfigurationError, match=why) as caught:
        ask()
    assert "secret" not in str(caught.value)


def test_a_password_is_the_first_line_as_it_is_now(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.touch(0o600)
    ask = databases.password(settings(tmp_path, f'[database]\nurl = "{URL}"\npassword_file = "{file}"'))
    assert ask is not None
    for password in ("first one", "another"):
        file.write_text(f"{password}\nnot this\n")
        assert ask() == password
