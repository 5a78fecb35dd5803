"""The configuration file: strict where a slip would be found at 3 am, and kept as people wrote it."""

from pathlib import Path

import pytest

from appliance import config, config_editing
from proxy.errors import ConfigurationError

FULL = """
# our proxy
[repository]
path = "/backup/repository"

[[host]]
name = "kvm1"
uri = "qemu+ssh://root@kvm1/system"   # the old one

[[san.target]]
iqn = "iqn.2026-01.example.san:backup"
portals = ["10.0.5.11:3260"]
chap_secret_file = "/etc/lanfree/chap"

[backup]
transports = ["san", "raw"]
quiesce = "require"
"""


def parse(text: str) -> config.Settings:
    return config.parse(text, Path("lanfree.toml"))


def test_what_is_written_is_read_and_the_rest_has_defaults() -> None:
    settings = parse(FULL)
    assert settings.repository.path == Path("/backup/repository")
    assert settings.host[0].overlay_directory == "/var/lib/libvirt/images/lanfree"
    assert settings.san.target[0].access == "backup"
    assert settings.backup.transports == ("san", "raw")
    assert settings.backup.workers == 4


@pytest.mark.parametrize(
    ("text", "names"),
    [
        pytest.param("[backup]\nworker = 8", "backup.worker", id="an unknown key"),
        pytest.param("[backup]\nworkers = 0", "backup.workers", id="a value out of range"),
        pytest.param('[backup]\ntransports = ["fibre"]', "backup.transports", id="an unknown transport"),
        pytest.param(
            "[[san.target]]\niqn = 'iqn.x'\nportals = []", "san.target.0.portals", id="a target without portals"
        ),
        pytest.param("[backup\n", "not valid TOML", id="broken TOML"),
        pytest.param(
            "[[vcenter]]\nname = 'v'\nhost = 'h'\nuser = 'u'\npassword_file = '/p'",
            "a thumbprint or a ca_bundle",
            id="a vCenter that nobody could recognise",
        ),
        pytest.param(
            "[[vcenter]]\nname = 'v'\nhost = 'h'\nuser = 'u'\npassword_file = '/p'\nca_bundle = '/c'\n" * 2,
            "same name",
            id="two vCenters of one name",
        ),
        pytest.param(
            "[repository]\nkey_file = '/k'\nunencrypted = true", "exclude each other", id="encrypted and not encrypted"
        ),
        pytest.param(
            "[repository]\npath = '/r'\ns3 = {bucket = 'b'}", "either a path or an s3 table", id="in two places"
        ),
        pytest.param("[repository]\nimmutable_days = 7", "immutable_days needs", id="immutable by nobody"),
        pytest.param("[repository]\ns3 = {bucket = 'b', lock = 'none'}", "repository.s3.lock", id="an unknown lock"),
        pytest.param(
            "[[witness]]\nurl = 'https://us:er@w.example/'", "name a token_file instead", id="a witness with a password"
        ),
        pytest.param('source = "/x"', "not valid TOML", id="a key of ours that is none of theirs"),
    ],
)
def test_a_slip_is_an_error_that_names_the_key(text: str, names: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(text)
    assert names in caught.value.message
    assert "lanfree.toml" in caught.value.message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[raw]\nfoo = 1", "raw.foo: there is no such key; there are: shared_directories"),
        ("[[host]]\nname = 'a'\nuri = 'b'\noverlay_directory = '/c'\nusr = 'x'", "there are: name, uri"),
        ("[nonsense]\na = 1", "nonsense: there is no such key; there are: "),
        ("[proxy]\nslots = 'two'", "proxy.slots: two is no whole number"),
        ("[raw]\nshared_directories = '/images'", "raw.shared_directories: is a list: write [/images]"),
        (
            "[[notify]]\nname = 'a'\nkind = 'syslog'\nurl = 'udp://h:1'\nquiet_from = '9pm'\nquiet_to = '06:00'",
            "notify.0.quiet_from: 9pm is no time of day; write 21:00",
        ),
        ("raw = 3", "raw: has keys of its own: shared_directories"),
    ],
)
def test_a_slip_is_told_in_words_of_people(text: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(text)
    assert says in caught.value.message
    assert "Input should" not in caught.value.message and "Extra inputs" not in caught.value.message


def test_all_slips_of_a_file_are_told() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse("[backup]\nworkers = 0\n[proxy]\nslots = 'two'")
    assert len(caught.value.__notes__) == 1


ROLLING = """
[[host]]
name = "kvm1"
uri = "qemu:///system"
overlay_directory = "/shared/lanfree"

[kvm]
rolling_overlay = ["db-*"]

[raw]
shared_directories = ["{shared}"]
"""


def test_rolling_overlays_are_off_unless_machines_are_named() -> None:
    assert parse("").kvm.rolling_overlay == ()
    assert parse(ROLLING.format(shared="/shared")).kvm.rolling_overlay == ("db-*",)


def test_rolling_overlays_that_the_proxy_cannot_read_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"overlay_directory of host kvm1 in raw\.shared_directories"):
        parse(ROLLING.format(shared="/images"))


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        config.load(tmp_path / "none.toml")
    assert "lanfree init" in caught.value.hint


def test_adding_a_host_keeps_comments_and_adds_only_that() -> None:
    text = config_editing.with_hypervisor(
        FULL, "host", config.Host(name="kvm2", uri="qemu:///system", overlay_directory="/o")
    )
    assert "# our proxy" in text
    assert "# the old one" in text
    assert [h.name for h in parse(text).host] == ["kvm1", "kvm2"]
    assert parse(text).host[1].overlay_directory == "/o"


def test_a_new_file_is_valid_and_takes_a_first_host() -> None:
    section = config.Repository(path=Path("/r"), key_file=Path("/k"))
    text = config_editing.new_text(section, Path("/s"))
    assert parse(text).repository == section
    assert (
        parse(config_editing.with_hypervisor(text, "host", config.Host(name="a", uri="qemu:///system"))).host[0].name
        == "a"
    )


def test_the_option_wins_over_the_environment_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LANFREE_CONFIG", raising=False)
    assert config.path_of(None) == config.DEFAULT_PATH
    monkeypatch.setenv("LANFREE_CONFIG", "/env.toml")
    assert config.path_of(None) == Path("/env.toml")
    assert config.path_of(Path("/option.toml")) == Path("/option.toml")


def test_the_manual_s_example_is_valid() -> None:
    manual = (Path(config.__file__).parent / "OPERATING.md").read_text()
    example = manual.split("```toml\n")[1].split("```")[0]
    settings = parse(example)
    assert [t.access for t in settings.san.target] == ["backup", "restore"]
