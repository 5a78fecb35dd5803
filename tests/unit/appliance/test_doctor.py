"""The doctor's table: every row can be acted on, ids are stable, nothing a probe does ends the examination."""

import re
from pathlib import Path

import pytest

from appliance import doctor, probes
from appliance.config import parse
from appliance.doctor import Check, Outcome, Result, Site
from proxy.errors import ConfigurationError, HostUnreachable, ToolFailed

SETUP = Path(doctor.__file__).parent / "setup" / "packages"
EVERYTHING = Site(
    repository=Path("/srv/repository"),
    state=Path("/srv/state"),
    secrets=[Path("/srv/secret")],
    portals=["127.0.0.1:3260", "127.0.0.2:3260"],
)


def test_every_check_has_a_one_line_remedy_for_its_failure() -> None:
    for check in doctor.checks(EVERYTHING):
        failed = Check(check.id, check.remedy, lambda: probes.fail("broken")).run()
        assert failed.remedy.strip(), check.id
        assert "\n" not in failed.remedy, check.id


def test_ids_are_unique_and_fit_for_machines() -> None:
    ids = [check.id for check in doctor.checks(EVERYTHING)]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[a-z0-9]+[-a-z0-9_./:]*", name) for name in ids), ids


def test_every_package_that_a_remedy_names_is_installed_by_the_set_up() -> None:
    lists = {path.name: path.read_text().split() for path in SETUP.glob("*.txt")}
    named = set[str]()
    for check in doctor.checks(EVERYTHING):
        if match := re.search(r"apt-get install ([-a-z0-9. ]+?)(?: &&|    #|$)", check.remedy):
            named.update(match[1].split())
    named.discard("linux-image-cloud-amd64")  # the row names Ubuntu's counterpart beside it
    assert len(named) > 10
    for name, packages in lists.items():
        assert named <= set(packages), f"{name} lacks {named - set(packages)}"


def test_what_is_not_configured_is_not_looked_at() -> None:
    ids = {check.id for check in doctor.checks(Site(lab=False, launch=False))}
    assert not {name for name in ids if name.startswith(("lab.", "portal.", "secret.", "program.tgt"))}
    assert ids.isdisjoint({"space.repository", "writable.state", "guestfs.launch"})
    assert {"python", "binding.nbd", "program.qemu-nbd", "kvm", "guestfs.kernel"} <= ids


def test_the_site_is_read_from_the_configuration() -> None:
    settings = parse(
        """
        [repository]
        path = "/srv/repository"
        key_file = "/srv/key"
        [state]
        directory = "/srv/state"
        [[notify]]
        name = "tickets"
        kind = "webhook"
        url = "https://tickets.example/"
        secret_file = "/srv/hook"
        [[notify]]
        name = "ops"
        url_file = "/srv/url"
        [[san.target]]
        iqn = "iqn.2026-01.lab.san:backup"
        portals = ["127.0.0.1:13260", "127.0.0.2:13260"]
        chap_secret_file = "/srv/secret"
        [[san.target]]
        iqn = "iqn.2026-01.lab.san:restore"
        portals = ["127.0.0.1:13260"]
        chap_secret_file = "/srv/secret"
        """,
        Path("lanfree.toml"),
    )
    assert doctor.site_of(settings, lab=False) == Site(
        repository=Path("/srv/repository"),
        state=Path("/srv/state"),
        secrets=(Path("/srv/key"), Path("/srv/secret"), Path("/srv/hook"), Path("/srv/url")),
        portals=("127.0.0.1:13260", "127.0.0.2:13260"),
        lab=False,
    )


def test_an_error_of_ours_becomes_a_failure_with_its_own_hint() -> None:
    def unreachable() -> probes.Finding:
        raise HostUnreachable("h1", "connection refused")

    result = Check("host.h1", "start libvirtd on h1", unreachable).run()
    assert result.outcome is Outcome.FAIL
    assert result.detail == "host h1 cannot be reached: connection refused"
    assert result.remedy == "check that libvirtd runs there and the URI is right"


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (PermissionError(13, "Permission denied"), "[Errno 13] Permission denied"),
        (ToolFailed("qemu-img", "ended with 1", "first line\nthe reason\n"), "the reason"),
        (ConfigurationError("lanfree.toml", "no such key"), "lanfree.toml: no such key"),
    ],
)
def test_an_error_without_a_hint_keeps_the_rows_remedy(error: Exception, detail: str) -> None:
    def broken() -> probes.Finding:
        raise error

    assert Check("row", "do this", broken).run() == Result("row", Outcome.FAIL, detail, "do this")


def test_a_remedy_stands_only_beside_what_is_not_ok() -> None:
    assert Check("row", "do this", lambda: probes.ok("fine")).run().remedy == ""
    assert Check("row", "do this", lambda: probes.warn("slow")).run().remedy == "do this"
    assert Check("row", "do this", lambda: probes.warn("slow", "do that")).run().remedy == "do that"


def test_rows_of_others_stand_before_the_slow_ones_and_results_come_one_by_one() -> None:
    ran: list[str] = []

    def note() -> probes.Finding:
        ran.append("extra")
        return probes.ok("fine")

    extra = [Check("host.h1", "start it", note)]
    ids = [check.id for check in doctor.checks(EVERYTHING, extra)]
    assert ids[-4:] == ["host.h1", "kvm", "guestfs.kernel", "guestfs.launch"]
    results = doctor.diagnose(Site(), extra)
    assert next(results).check == "python"
    assert ran == []


def test_the_worst_outcome_counts() -> None:
    def of(*outcomes: Outcome) -> list[Result]:
        return [Result("row", outcome, "", "") for outcome in outcomes]

    assert doctor.worst([]) is Outcome.OK
    assert doctor.worst(of(Outcome.OK, Outcome.WARN)) is Outcome.WARN
    assert doctor.worst(of(Outcome.FAIL, Outcome.WARN, Outcome.OK)) is Outcome.FAIL


def test_broken_directories_and_secrets_are_found_on_a_real_site(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o755)
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0o644)
    site = Site(tmp_path / "file" / "repository", tmp_path / "state", [tmp_path / "secret"], lab=False, launch=False)
    (tmp_path / "file").touch()
    wanted = {"writable.repository", "writable.state", f"secret.{tmp_path}/secret"}
    found = {check.id: check.run() for check in doctor.checks(site) if check.id in wanted}
    assert {name for name, result in found.items() if result.outcome is Outcome.FAIL} == wanted
    assert found["writable.state"].remedy == f"chmod 0700 {tmp_path}/state"


def test_a_bootstrap_that_did_not_end_is_told(tmp_path: Path) -> None:
    def found() -> Result:
        rows = doctor.checks(Site(state=tmp_path, lab=False, launch=False))
        return next(check for check in rows if check.id == "bootstrap").run()

    assert found().outcome is Outcome.OK
    (tmp_path / "bootstrap.unfinished").write_text("{}")
    assert found().outcome is Outcome.WARN
    assert "lanfree bootstrap" in found().remedy
