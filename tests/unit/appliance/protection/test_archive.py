"""Which files belong to the appliance's state, and that nothing else comes out of an archive."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from appliance import config
from appliance.config_editing import without_addresses
from appliance.protection.archive import LARGEST, archive, named_files, unpack
from proxy.errors import ConfigurationError, FormatError
from proxy.state_directory import StateDirectory

# Keys of the configuration that name a directory, a socket, what every system has, or what is no secret of ours.
NOT_OURS = {
    "source",
    "path",
    "directory",
    "shared_directories",
    "restore_directories",
    "immutable_socket",
    "vddk_library",
    "file",
}

TEXT = """
[repository]
key_file = "{0}/repository.key"
[[copy_to]]
name = "vault"
path = "{0}/vault"
key_file = "{0}/vault.key"
[[host]]
name = "kvm1"
uri = "qemu:///system"
tls_directory = "{0}/pki"
"""


@pytest.fixture
def settings(tmp_path: Path) -> config.Settings:
    path = tmp_path / "lanfree.toml"
    path.write_text(TEXT.format(tmp_path))
    for name in ("repository.key", "vault.key", "pki/clientkey.pem"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"secret of {name}")
    return config.load(path)


def paths_in(model: type[BaseModel]) -> Iterator[str]:
    """Names of all keys of the configuration that are paths."""
    for name, field in model.model_fields.items():
        for kind in leaves(field.annotation):
            if kind is Path:
                yield name
            elif isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from paths_in(kind)


def leaves(kind: object) -> Iterator[object]:
    inner = [each for each in get_args(kind) if each not in (None, type(None), Ellipsis)]
    if not inner or not any(isinstance(each, type) or get_args(each) for each in inner):
        yield kind
    for each in inner:
        yield from leaves(each)


def test_every_path_of_the_configuration_is_protected_or_known_not_to_be_ours() -> None:
    found = set(paths_in(config.Settings))
    assert {"key_file", "password_file", "chap_secret_file", "ca_bundle", "tls_directory", "path"} <= found
    taken = {name for name in found if name.endswith("_file") or name in {"ca_bundle", "tls_directory"}}
    assert found - taken - NOT_OURS == set()


def test_the_repository_does_not_keep_its_own_key(settings: config.Settings, tmp_path: Path) -> None:
    kept = archive(settings, StateDirectory(tmp_path / "state"), secrets=True)
    assert set(kept.files) == {tmp_path / "vault.key", tmp_path / "pki" / "clientkey.pem"}
    assert b"secret of repository.key" not in kept.data
    assert b"secret of vault.key" in kept.data


def test_nor_where_another_section_names_the_same_file(settings: config.Settings, tmp_path: Path) -> None:
    settings.source.write_text(TEXT.format(tmp_path).replace("vault.key", "repository.key"))
    changed = config.load(settings.source)
    assert [named.path.name for named in named_files(changed)] == ["clientkey.pem"]
    assert b"secret of repository.key" not in archive(changed, StateDirectory(tmp_path / "state"), secrets=True).data


def test_what_went_in_comes_out_byte_by_byte_and_the_same_twice(settings: config.Settings, tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "state")
    state.put("unlock/0123.sealed", b"\x00\xffsealed")
    state.put("vsphere/installation", b"me")
    state.put("vsphere/runs/b1.json", b"what went on")
    kept = archive(settings, state, secrets=True)
    assert kept.data == archive(settings, state, secrets=True).data
    found = unpack(kept.data)
    assert found.configuration == settings.source.read_bytes()
    assert found.files[tmp_path / "vault.key"] == b"secret of vault.key"
    assert dict(found.records) == {"unlock/0123.sealed": b"\x00\xffsealed", "vsphere/installation": b"me"}


def test_without_secrets_only_names_are_in_it(settings: config.Settings, tmp_path: Path) -> None:
    kept = archive(settings, StateDirectory(tmp_path / "state"), secrets=False)
    assert b"secret of" not in kept.data
    assert (kept.files, kept.missing, dict(unpack(kept.data).files)) == ((), (), {})


ADDRESSES = """\
# the first line
[[witness]]
url = "https://notes.example:8443/a/b?key=s3cret#s3cret"  # takes notes
[[notify]]
name = "hook"
kind = "webhook"
url = "https://hooks.example/services/s3cret"
[[notify]]
name = "log"
kind = "syslog"
url = "unix:///dev/log"
"""


def test_without_secrets_addresses_have_their_host_alone_and_people_s_lines_stay(tmp_path: Path) -> None:
    kept = without_addresses(ADDRESSES.encode(), tmp_path).decode()
    assert kept == ADDRESSES.replace("/a/b?key=s3cret#s3cret", "/").replace("/services/s3cret", "/")
    assert without_addresses(kept.encode(), tmp_path) == kept.encode()
    with pytest.raises(ConfigurationError, match="not valid TOML"):
        without_addresses(b"[[witness]", tmp_path)


def test_a_file_that_is_named_by_a_detour_is_kept_where_it_is(settings: config.Settings, tmp_path: Path) -> None:
    settings.source.write_text(TEXT.format(tmp_path).replace("/vault.key", "/pki/../vault.key"))
    kept = archive(config.load(settings.source), StateDirectory(tmp_path / "state"), secrets=True)
    assert unpack(kept.data).files[tmp_path / "vault.key"] == b"secret of vault.key"


def test_files_that_cannot_be_read_are_told_and_the_others_kept(settings: config.Settings, tmp_path: Path) -> None:
    (tmp_path / "vault.key").unlink()
    (tmp_path / "pki" / "huge.pem").write_bytes(bytes(LARGEST + 1))
    kept = archive(settings, StateDirectory(tmp_path / "state"), secrets=True)
    assert kept.files == (tmp_path / "pki" / "clientkey.pem",)
    assert kept.missing == (
        f"{tmp_path}/pki/huge.pem (host.tls_directory): is larger than {LARGEST} bytes",
        f"{tmp_path}/vault.key (copy_to.key_file): no such file",
    )


def test_a_configuration_that_vanished_is_an_error(settings: config.Settings, tmp_path: Path) -> None:
    settings.source.unlink()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        archive(settings, StateDirectory(tmp_path / "state"), secrets=True)


def packed(name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size, member.type, member.linkname = len(data), kind, "/etc/shadow"
        tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        packed("files/../../etc/cron.d/evil"),
        packed("configuration", kind=tarfile.SYMTYPE),
        packed("files/etc/passwd", kind=tarfile.LNKTYPE),
        packed("records/kvm/runs/b1.json"),
        packed("records/unlock/../../x"),
        packed("records/unlock/.hidden"),
        packed("records/unlock/no word"),
        packed("something/else"),
        packed("files/only"),
        b"no tar at all" * 100,
        b"",
    ],
    ids=[
        "parent",
        "symlink",
        "hard link",
        "run record",
        "record above",
        "hidden",
        "no name",
        "unknown",
        "no configuration",
        "rubbish",
        "nothing",
    ],
)
def test_what_we_did_not_make_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        unpack(data)
