"""Keys of encrypted volumes that a proxy keeps."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from blake3 import blake3

from appliance.unlock import UnlockStore, secret_of
from mounter.keys import Key
from proxy.errors import ConfigurationError, FormatError
from proxy.repository.sealing import Keyring, Keys, Sealer
from proxy.state_directory import StateDirectory
from tests.unit.repository.damage import flipped

AT = datetime(2026, 11, 22, 21, 0, tzinfo=UTC)
SECRET = bytes(range(256)) + b"\n"


def store(directory: Path, key: bytes = b"k" * 32, repository: bytes = b"r" * 16) -> UnlockStore:
    return UnlockStore(
        StateDirectory(directory / "unlock"), Sealer(repository, 65536, Keys(Keyring((key,)))), sealed=True
    )


def test_keys_come_back_byte_by_byte_for_their_machine_alone(tmp_path: Path) -> None:
    first = store(tmp_path).add("m1", Key("/dev/sda3", SECRET), AT)
    second = store(tmp_path).add("m1", Key("", b"passphrase"), AT)
    assert [(k.volume, k.secret) for k in store(tmp_path).keys("m1")] == [("/dev/sda3", SECRET), ("", b"passphrase")]
    assert list(store(tmp_path).kept("m1")) == [first, second]
    assert (first.volume, first.added_at) == ("/dev/sda3", AT)
    assert store(tmp_path).keys("m2") == []


def test_a_removed_key_is_gone_and_the_last_one_leaves_no_file(tmp_path: Path) -> None:
    kept = store(tmp_path).add("m1", Key("", b"a"), AT)
    assert not store(tmp_path).remove("m1", "no such id")
    assert store(tmp_path).remove("m1", kept.id)
    assert store(tmp_path).keys("m1") == []
    assert not list((tmp_path / "unlock").glob("*.sealed"))


def test_nothing_of_a_secret_or_a_machine_can_be_read_on_disk(tmp_path: Path) -> None:
    store(tmp_path).add("machine-one", Key("/dev/sda3", b"a secret that nobody reads"), AT)
    (file,) = (tmp_path / "unlock").glob("*.sealed")
    assert b"nobody reads" not in file.read_bytes()
    assert "machine-one" not in file.name
    assert (tmp_path / "unlock").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("change", ["another machine", "another repository", "another key", "damage"])
def test_what_was_not_kept_here_is_refused(change: str, tmp_path: Path) -> None:
    store(tmp_path).add("m1", Key("", b"very secret"), AT)
    store(tmp_path).add("m2", Key("", b"another secret"), AT)
    file, other = ((tmp_path / "unlock" / f"{blake3(m).hexdigest(16)}.sealed") for m in (b"m1", b"m2"))
    opened, machine = store(tmp_path), "m1"
    if change == "another machine":
        machine = "m2"
        file.replace(other)
    elif change == "another repository":
        opened = store(tmp_path, repository=b"x" * 16)
    elif change == "another key":
        opened = store(tmp_path, key=b"x" * 32)
    else:
        file.write_bytes(flipped(file.read_bytes()))
    with pytest.raises(FormatError) as told:
        opened.keys(machine)
    assert "very secret" not in str(told.value)


def test_a_repository_in_the_clear_keeps_no_keys(tmp_path: Path) -> None:
    clear = Sealer(b"r" * 16, 65536, Keys(Keyring((b"k" * 32,), sealed=False)))
    with pytest.raises(ConfigurationError, match="not encrypted"):
        UnlockStore(StateDirectory(tmp_path / "unlock"), clear, sealed=False).add("m1", Key("", b"secret"), AT)
    assert not (tmp_path / "unlock").exists()


def test_a_secret_is_read_whole_from_a_private_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    path.chmod(0o600)
    assert secret_of(path) == SECRET
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="others than its owner"):
        secret_of(path)
    path.chmod(0o600)
    path.write_bytes(b"")
    with pytest.raises(ConfigurationError, match="is empty"):
        secret_of(path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        secret_of(tmp_path / "nothing")
