"""Getting things back by mouse, in a real browser, out of file systems that nobody of ours made."""

import os
import re
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from api.auth.roles import Role
from proxy.model import MachineConfiguration, RestorePoint
from proxy.units import MiB
from tests.integration.appliance.point_maker import PointMaker
from tests.integration.mounter.zoo_sealed import luks
from tests.integration.serving.fleet import Fleet, until
from tests.integration.web.console import NARROW, WIDE, Console, findings, settled

pytestmark = [pytest.mark.tools, pytest.mark.timeout(900), pytest.mark.requires("nbdkit", "mke2fs", "cryptsetup")]

expect.set_options(timeout=30_000)

SCREENSHOTS = Path(__file__).parents[3] / "build" / "screenshots"

VOLUME = "5d4f8f4e-4f5a-4f53-9a8e-0d7a3cf1b1a0"
"""The same in each restore point, as of a file system that lives on."""

NOISE = os.urandom(2 * MiB)


PASSPHRASE = b"a walrus waits in the rain"


@dataclass
class Restoring:
    """``points``: two nights of db-07, one of web-07, and one of db-08, whose disk is encrypted."""

    console: Console
    points: list[RestorePoint]

    @property
    def base(self) -> Path:
        return self.console.fleet.base


def image(base: Path, files: dict[str, bytes]) -> Path:
    """An ext4 file system of a Debian with these files."""
    root, made = base / "root", base / "disk.img"
    for directory in ("etc", "bin", "dev", "home", "lib", "proc", "sbin", "usr/bin"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    (root / "etc/os-release").write_text('ID=debian\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\n')
    (root / "etc/fstab").write_text("LABEL=ROOT / ext4 defaults 0 1\n")
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    made.unlink(missing_ok=True)
    made.touch()
    os.truncate(made, 24 * MiB)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-L", "ROOT", "-U", VOLUME, "-d", str(root), str(made)], check=True)
    return made


@pytest.fixture(scope="module")
def restoring(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restoring]:
    """A proxy that serves, restore points that hold file systems, and a directory that restores may go to."""
    base = tmp_path_factory.mktemp("restoring")
    allowed = base / "restored"
    shared = base / "shared"
    for directory in (allowed, shared):
        directory.mkdir()
    (shared / "mounted").touch()
    more = f'[raw]\nshared_directories = ["{shared}"]\n'
    more += f'[web]\naddress = "127.0.0.1:0"\nrestore_directories = ["{allowed}"]\n'
    fleet = Fleet(base, more=more)
    made = Console(fleet, browser, SCREENSHOTS)
    try:
        maker, points = PointMaker(fleet.services.repository), []
        first = {"srv/data/noise.bin": NOISE, "srv/data/report.txt": b"first\n", "srv/data/gone.txt": b"gone\n"}
        points.append(maker.make("db-07", {"vda": image(base, first)}))
        (base / "root/srv/data/gone.txt").unlink()
        second = {"srv/data/report.txt": b"second, and longer\n", "srv/data/new.conf": b"new\n"}
        points.append(maker.make("db-07", {"vda": image(base, second)}))
        points.append(maker.make("web-07", {"vda": base / "disk.img"}))
        luks(base / "sealed", "luks1", PASSPHRASE, (base / "disk.img").read_bytes())
        points.append(maker.make("db-08", {"vda": base / "sealed"}))
        with fleet.services.catalog.transaction() as unit:
            for point in points:
                unit.restore_points.add(point)
        for name in ("alice",):
            made.user(name, Role.ADMINISTRATOR)
        made.user("rita", Role.RESTORE_OPERATOR, machines=("db-*",))
        proxy = fleet.start()
        made.start()
        until(lambda: fleet.serves(proxy), "the proxy serves")
        yield Restoring(made, points)
    finally:
        made.stop()
        fleet.close()


def test_an_unrecorded_restore_point_is_opened_and_its_file_comes_byte_for_byte(restoring: Restoring) -> None:
    page = restoring.console.signed_in(path="/restore/files")
    page.get_by_role("row", name=re.compile("db-07")).get_by_role("link", name="Browse files").click()
    settled(page)
    files = page.get_by_role("region", name="Files", exact=True)
    files.get_by_role("link", name="srv").click()
    files.get_by_role("link", name="data").click()
    expect(files).to_contain_text("new.conf")
    restoring.console.keep(page, "files-opened")
    assert not findings(page)
    with page.expect_download() as got:
        files.get_by_role("row", name=re.compile("noise.bin")).get_by_role("button", name="Download").click()
    assert got.value.suggested_filename == "noise.bin"
    assert got.value.path().read_bytes() == NOISE


def recorded(restoring: Restoring, page: Page) -> None:
    """Let the files of all restore points be recorded, by mouse, once."""
    for point in restoring.points[:2]:
        restoring.console.go(page, f"/restore-points/{point.id}")
        record = page.get_by_role("button", name="Record its files")
        if not record.count():
            continue
        record.click()
        page.get_by_role("link", name="Watch it").click()
        settled(page)
        said = page.locator(".lf-head .lf-chip > span:last-child", has_text=re.compile("^Done$"))
        expect(said.first).to_be_visible(timeout=120_000)


def test_recorded_files_are_searched_compared_and_picked_into_an_archive(restoring: Restoring) -> None:
    console, (first, second, *_) = restoring.console, restoring.points
    page = console.signed_in(path=f"/restore-points/{first.id}")
    recorded(restoring, page)
    console.go(page, f"/restore-points/{second.id}/files")
    page.get_by_role("searchbox", name="Find in this restore point").fill("report")
    page.get_by_role("button", name="Find", exact=True).click()
    files = page.get_by_role("region", name="Files", exact=True)
    expect(files).to_contain_text("/srv/data")
    files.get_by_label("Pick report.txt").check()
    page.get_by_role("button", name="Back to the folder").click()
    files.get_by_role("link", name="srv").click()
    files.get_by_role("link", name="data").click()
    files.get_by_label("Pick new.conf").check()
    expect(page.get_by_role("heading", name="2 things picked")).to_be_visible()
    console.keep(page, "files-picked")
    with page.expect_download() as got:
        page.get_by_role("button", name="Download").last.click()
    with zipfile.ZipFile(got.value.path()) as archive:
        assert archive.read("report.txt") == b"second, and longer\n"
        assert archive.read("new.conf") == b"new\n"
    files.get_by_role("row", name=re.compile("report.txt")).get_by_role("link", name="Versions").click()
    settled(page)
    expect(page.get_by_role("region", name="Versions").locator("tbody tr")).to_have_count(2)
    console.keep(page, "files-versions")
    assert not findings(page)
    page.get_by_role("link", name="What else changed then").click()
    settled(page)
    differences = page.get_by_role("region", name="Differences")
    for name, what in (("gone.txt", "Removed"), ("new.conf", "Added"), ("report.txt", "Changed")):
        expect(differences.get_by_role("row", name=re.compile(name))).to_contain_text(what)
    console.keep(page, "files-compare")
    assert not findings(page)


def test_a_lost_file_is_found_with_its_reasons_and_downloaded(restoring: Restoring) -> None:
    console = restoring.console
    page = console.signed_in(path="/restore/lost")
    recorded(restoring, page)
    console.go(page, "/restore/lost")
    page.get_by_label("1. On which machine was it?").fill("db-07")
    page.get_by_label("2. What was it called?").fill("gone")
    page.get_by_role("button", name="Look for it").click()
    settled(page)
    expect(page.get_by_role("heading", name=re.compile("Likeliest.*gone.txt"))).to_be_visible()
    expect(page.get_by_text("It is not there any more")).to_be_visible()
    console.keep(page, "files-lost")
    assert not findings(page)
    with page.expect_download() as got:
        page.get_by_role("button", name="Download this version").first.click()
    assert got.value.path().read_bytes() == b"gone\n"


def test_files_are_put_back_into_a_directory_by_a_task(restoring: Restoring) -> None:
    console = restoring.console
    page = console.signed_in(path=f"/restore-points/{restoring.points[1].id}/files")
    page.get_by_label("Pick etc").check()
    page.get_by_role("button", name="To a directory of the proxy").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Directory of the proxy").fill(f"{restoring.base}/restored/here")
    console.keep(page, "files-to-directory")
    dialog.get_by_role("button", name="Restore", exact=True).click()
    page.wait_for_url(re.compile("/tasks/"))
    settled(page)
    said = page.locator(".lf-head .lf-chip > span:last-child", has_text=re.compile("^Done$"))
    expect(said.first).to_be_visible(timeout=120_000)
    assert (restoring.base / "restored/here/etc/fstab").read_text() == "LABEL=ROOT / ext4 defaults 0 1\n"


def test_a_machine_is_restored_to_a_path_after_it_was_said_what_will_happen(restoring: Restoring) -> None:
    console, point = restoring.console, restoring.points[1]
    page = console.signed_in(path="/restore/machine")
    page.get_by_role("row", name=re.compile("db-07")).get_by_role("link", name="Restore").click()
    settled(page)
    page.get_by_label("Only its disks").check()
    expect(page.get_by_label("File", exact=True)).to_have_value(f"{restoring.base}/shared/db-07-vda.raw")
    page.get_by_role("button", name="Show what will happen").click()
    expect(page.get_by_text("Only disks are written")).to_be_visible()
    console.keep(page, "restore-machine-preview")
    assert not findings(page)
    page.get_by_role("button", name="Restore db-07").click()
    page.wait_for_url(re.compile("/tasks/"))
    settled(page)
    said = page.locator(".lf-head .lf-chip > span:last-child", has_text=re.compile("^Done$"))
    expect(said.first).to_be_visible(timeout=120_000)
    console.keep(page, "restore-machine-task")
    restored = (restoring.base / "shared/db-07-vda.raw").read_bytes()
    with restoring.console.fleet.services.repository.open_image(point, "vda") as reader:
        held = bytearray(len(restored))
        reader.read_into(0, memoryview(held))
    assert restored == bytes(held)


def test_a_restore_operator_of_some_machines_sees_only_those(restoring: Restoring) -> None:
    console = restoring.console
    page = console.signed_in("rita", "/restore/files")
    rows = page.get_by_role("region", name="Machines").locator("tbody tr")
    expect(rows).to_have_count(2)
    assert {row.split()[0] for row in rows.all_inner_texts()} == {"db-07", "db-08"}
    answer = page.goto(f"{console.url}/console/restore-points/{restoring.points[2].id}/files")
    assert answer is not None
    assert answer.status in (403, 404)
    for path in ("/users", "/audit", "/doctor"):
        refused = page.goto(f"{console.url}/console{path}")
        assert refused is not None
        assert refused.status == 403, path


def test_an_encrypted_volume_is_opened_with_its_key_which_is_shown_nowhere(restoring: Restoring) -> None:
    console, point = restoring.console, restoring.points[3]
    page = console.signed_in("rita", f"/restore-points/{point.id}/files")
    give = page.get_by_role("button", name="Give its key…")
    expect(give).to_be_visible(timeout=300_000)
    console.keep(page, "files-encrypted")
    for secret in ("not this one", PASSPHRASE.decode()):
        give.click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label(re.compile("Passphrase")).fill(secret)
        dialog.get_by_role("button", name="Open", exact=True).click()
        expect(dialog).to_have_count(0)
        if secret == PASSPHRASE.decode():
            break
        refused = page.get_by_text(re.compile(r"encrypted \(LUKS\): (?!no key was given)"))
        expect(refused.first).to_be_visible(timeout=300_000)
    files = page.get_by_role("region", name="Files", exact=True)
    expect(files.get_by_role("link", name="srv")).to_be_visible(timeout=300_000)
    assert PASSPHRASE.decode() not in page.content()
    console.keep(page, "files-unlocked")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_pages_with_something_in_them_have_no_serious_findings_of_axe(
    restoring: Restoring, width: int, dark: bool
) -> None:
    console, (first, second, *_) = restoring.console, restoring.points
    page = console.signed_in(path="/restore/files", width=width, dark=dark)
    pages = {
        "browse": f"/restore-points/{second.id}/files",
        "wizard": f"/restore/machine/{second.id}",
        "point": f"/restore-points/{second.id}",
        "points": "/restore-points",
        "find": "/files?q=report",
        "compare": f"/restore/compare?before={first.id}&after={second.id}",
    }
    shown = {"wizard": "Show what will happen", "points": "db-07"}
    for name, path in pages.items():
        console.go(page, path)
        if name == "browse":
            expect(page.get_by_label("Pick etc")).to_be_visible()
        elif name in shown:
            expect(page.get_by_text(shown[name]).first).to_be_visible()
        page.wait_for_timeout(300)  # for the picture alone
        console.keep(page, f"rich-{name}-{'dark' if dark else 'light'}-{width}")
        assert not findings(page), name
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, f"{name} scrolls sideways by {wider} px"
    assert not console.outside


def of_vsphere(restoring: Restoring) -> RestorePoint:
    """A restore point of a machine that vSphere saved; no vCenter is there that could take it back."""
    services, like = restoring.console.fleet.services, restoring.points[2]
    named = {"machine": "id-vs-07", "machine_name": "vs-07", "hypervisor": "vc-a", "run": "night-vs"}
    saved = MachineConfiguration("vsphere-json", "{}")
    point = services.repository.seal(replace(like, id="", parent=None, configuration=saved, **named))
    with services.catalog.transaction() as unit:
        unit.restore_points.add(point)
    return point


def loaded(page: Page) -> None:
    """The library's own bar, which has no name, is gone."""
    expect(page.locator(".q-loading-bar:not([aria-hidden=true])")).to_have_count(0)


def test_a_vsphere_machine_is_asked_where_in_vcenter_it_goes_and_a_kvm_machine_is_not(restoring: Restoring) -> None:
    console, point = restoring.console, of_vsphere(restoring)
    page = console.signed_in(path=f"/restore/machine/{restoring.points[1].id}")
    expect(page.get_by_label("Host")).to_be_visible()
    for label in ("Folder", "Resource pool", "Other networks", "A disk for another machine"):
        expect(page.get_by_label(label)).to_have_count(0)
    console.go(page, f"/restore/machine/{point.id}")
    into, folder = page.get_by_label("The machine that is given the disk"), page.get_by_label("Folder")
    expect(folder).to_be_visible()
    expect(into).to_be_hidden()
    page.get_by_label("Other networks").fill("VM Network")
    page.get_by_role("button", name="Show what will happen").click()
    expect(page.get_by_text("“VM Network” is not of the form “saved = new”")).to_be_visible()
    page.get_by_label("Other networks").fill("VM Network = Isolated")
    page.get_by_role("button", name="Show what will happen").click()
    expect(page.get_by_text("vda: vSphere makes it in a datastore")).to_be_visible()
    expect(page.get_by_label("Other networks")).to_have_value("VM Network = Isolated")  # nothing is typed twice
    for width in (WIDE, NARROW):
        page.set_viewport_size({"width": width, "height": 900})
        console.keep(page, f"restore-vsphere-{width}")
        loaded(page)
        assert not findings(page)
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, f"it scrolls sideways by {wider} px at {width} px"
    page.get_by_label("A disk for another machine").check()
    for gone in (
        folder,
        page.get_by_label("Other networks"),
        page.get_by_label("Host"),
        page.get_by_label("Its new name"),
    ):
        expect(gone).to_be_hidden()
    expect(into).to_be_visible()
    page.get_by_role("button", name="Show what will happen").click()
    expect(page.get_by_text("Say which machine is given the disk")).to_be_visible()
    console.keep(page, f"restore-vsphere-attach-{NARROW}")
    loaded(page)
    assert not findings(page)
    page.get_by_label("Only its disks").check()
    page.get_by_role("button", name="Show what will happen").click()
    expect(page.get_by_text("Only disks are written")).to_be_visible()
