"""What is kept of servers that somebody signed in to."""

import threading
from pathlib import Path

import pytest

from appliance.cli.remote.asking import client_of
from appliance.cli.servers import Known, Servers, name_of, servers, token_for
from proxy.errors import ConfigurationError


def test_what_is_kept_is_found_again_however_the_address_is_written(tmp_path: Path) -> None:
    file = tmp_path / "of-mine" / "servers.json"
    Servers(file).keep("https://Backup.example:9728/", Known("PEM", "lft_secret", "t1"))
    assert Servers(file).of("https://backup.example:9728") == Known("PEM", "lft_secret", "t1")
    assert Servers(file).of("https://backup.example") == Known()


def test_nobody_else_reads_the_tokens(tmp_path: Path) -> None:
    file = tmp_path / "of-mine" / "servers.json"
    Servers(file).keep("https://a", Known(token="lft_secret"))
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_forgetting_one_leaves_the_others(tmp_path: Path) -> None:
    kept = Servers(tmp_path / "servers.json")
    kept.keep("https://a", Known(token="one"))
    kept.keep("https://b", Known(token="two"))
    assert kept.forget("https://a").token == "one"
    assert kept.of("https://a") == Known()
    assert kept.of("https://b").token == "two"


def test_logins_at_once_are_all_kept(tmp_path: Path) -> None:
    file, many = tmp_path / "of-mine" / "servers.json", 8
    together = threading.Barrier(many, timeout=60)

    def sign_in(number: int) -> None:
        together.wait()
        for again in range(5):
            Servers(file).keep(f"https://s{number}-{again}", Known(token="lft_secret"))

    threads = [threading.Thread(target=sign_in, args=(number,)) for number in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(Servers(file).of(f"https://s{n}-{again}").token for n in range(many) for again in range(5))


def test_what_a_killed_login_left_goes_with_the_next(tmp_path: Path) -> None:
    file = tmp_path / "servers.json"
    (tmp_path / ".servers.json.new").write_text("half a tok")
    Servers(file).keep("https://a", Known(token="one"))
    assert [each.name for each in tmp_path.iterdir()] == ["servers.json"]
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a:443": {"unknown": 1}}', '{"a:443": 7}'])
def test_a_damaged_file_is_told_with_what_to_do(tmp_path: Path, text: str) -> None:
    file = tmp_path / "servers.json"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        Servers(file).of("https://a")
    assert "lanfree login" in caught.value.hint


def test_a_port_that_is_not_said_is_that_of_https() -> None:
    assert name_of("https://A.example") == name_of("https://a.example:443/") == "a.example:443"


def test_a_token_file_goes_before_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text("lft_of_the_file\n")
    file.chmod(0o600)
    monkeypatch.setenv("LANFREE_TOKEN_FILE", str(file))
    assert token_for(Known(token="lft_kept")) == "lft_of_the_file"
    file.chmod(0o644)
    with pytest.raises(ConfigurationError):
        token_for(Known(token="lft_kept"))


@pytest.mark.parametrize(
    "address", ["http://backup.example:9728", "backup.example", "https://me:secret@backup.example"]
)
def test_no_token_goes_where_others_read_it_on_the_way(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    servers().keep("https://backup.example:9728", Known(token="lft_kept"))
    servers().keep("https://backup.example", Known(token="lft_kept"))
    with pytest.raises(ConfigurationError, match="address"):
        client_of(address)
    with client_of("https://backup.example:9728") as client:
        assert client.base_url == "https://backup.example:9728"
