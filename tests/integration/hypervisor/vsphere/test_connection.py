"""The connection against the real simulator: sessions that end, a vCenter that restarts, a new certificate."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.errors import CertificateRefused, ConfigurationError
from proxy.hypervisor.vsphere import collector, internal, privileges, tasks
from proxy.hypervisor.vsphere.connection import Vcenter, vim
from proxy.hypervisor.vsphere.faults import Refusal, Refused
from proxy.hypervisor.vsphere.settings import VsphereSettings
from tests.system.vcsim.lab import VcsimLab

pytestmark = [pytest.mark.tools, pytest.mark.requires("tgtd", "root", "go")]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VcsimLab]:
    with VcsimLab(tmp_path_factory.mktemp("connection") / "lab") as found:
        yield found


def settings(lab: VcsimLab, **changed: Any) -> VsphereSettings:
    given = {
        "name": "lab",
        "host": lab.host,
        "port": lab.port,
        "user": lab.user,
        "password_file": lab.password_file,
        "thumbprint": lab.thumbprint,
        "restart_patience": 30.0,
    }
    return VsphereSettings(**{**given, **changed})


@pytest.fixture
def vcenter(lab: VcsimLab) -> Iterator[Vcenter]:
    found = Vcenter(settings(lab))
    yield found
    lab.mend()
    found.close()


def machine(vcenter: Vcenter, name: str = "web") -> Any:
    found = collector.find(vcenter, vim.VirtualMachine, ["name"])
    return next(one.object for one in found if one.get("name") == name)


def test_it_connects_by_thumbprint_and_by_authority(lab: VcsimLab) -> None:
    for changed in ({}, {"thumbprint": "", "ca_bundle": lab.ca_file}, {"ca_bundle": lab.ca_file}):
        vcenter = Vcenter(settings(lab, **changed))
        assert vcenter.content.about.apiType == "VirtualCenter"
        vcenter.close()


def test_a_wrong_password_is_told(lab: VcsimLab, tmp_path: Path) -> None:
    wrong = tmp_path / "password"
    wrong.write_text("wrong\n")
    wrong.chmod(0o600)
    with pytest.raises(ConfigurationError, match="refuses user"):
        Vcenter(settings(lab, password_file=wrong)).now()


def test_sessions_that_expire_are_renewed_in_the_middle_of_anything(lab: VcsimLab, vcenter: Vcenter) -> None:
    one = machine(vcenter)
    lab.expire_sessions()
    assert one.name == "web"
    lab.expire_sessions()
    assert len(collector.find(vcenter, vim.VirtualMachine, ["name", "config.hardware.device"])) == 2
    lab.expire_sessions()
    task = one.CreateSnapshotEx_Task(name="expired", description="", memory=False)
    lab.expire_sessions()
    snapshot = tasks.wait(vcenter, task, "snapshot", limit=20)
    lab.expire_sessions()
    tasks.wait(vcenter, snapshot.RemoveSnapshot_Task(removeChildren=False), "removal", limit=20)
    assert lab.machine("web")["Snapshots"] in ([], None)


def test_a_restart_is_waited_for_by_reading_calls(lab: VcsimLab, vcenter: Vcenter) -> None:
    one = machine(vcenter)
    done: list[object] = []
    readers = [threading.Thread(target=lambda: done.append(one.name)) for _ in range(3)]
    lab.restart_vcenter(1.0)
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(30)
    assert done == ["web"] * 3


def test_a_connection_that_breaks_is_nothing_to_a_reading_call(lab: VcsimLab, vcenter: Vcenter) -> None:
    one = machine(vcenter)
    lab.fault("connection-cut", times=2)
    assert one.name == "web"


def test_a_connection_that_breaks_in_a_changing_call_is_told(lab: VcsimLab, vcenter: Vcenter) -> None:
    one = machine(vcenter)
    lab.fault("connection-cut", times=1)
    before = lab.counters()["Calls"].get("SetCustomValue", 0)
    with pytest.raises(Refused) as error:
        one.SetCustomValue(key="x", value="y")
    assert error.value.refusal is Refusal.OUTCOME_UNKNOWN
    assert lab.counters()["Calls"].get("SetCustomValue", 0) <= before + 1


def test_a_refused_snapshot_is_told_with_the_simulators_words(lab: VcsimLab, vcenter: Vcenter) -> None:
    one = machine(vcenter)
    lab.fault("snapshot-refused", machine="web", times=1)
    with pytest.raises(Refused) as error:
        tasks.wait(vcenter, one.CreateSnapshotEx_Task(name="x", memory=False), "snapshot of web", limit=20)
    assert error.value.fault
    assert error.value.message.startswith("snapshot of web")


def test_relocation_is_held_off_and_allowed_again(lab: VcsimLab, vcenter: Vcenter) -> None:
    one = machine(vcenter)
    spec = vim.vm.RelocateSpec()
    for _ in range(2):  # twice is as good as once
        internal.disable_methods(vcenter, [one], ["RelocateVM_Task"], source="lanfree-test", why="backup")
    assert "RelocateVM_Task" in list(one.disabledMethod)
    with pytest.raises(Refused) as error:
        tasks.wait(vcenter, one.RelocateVM_Task(spec=spec), "relocate", limit=20)
    assert error.value.refusal is Refusal.DISABLED
    internal.enable_methods(vcenter, [one], ["RelocateVM_Task"], source="somebody else")
    assert "RelocateVM_Task" in list(one.disabledMethod)
    lab.expire_sessions()
    for _ in range(2):
        internal.enable_methods(vcenter, [one], ["RelocateVM_Task"], source="lanfree-test")
    assert "RelocateVM_Task" not in list(one.disabledMethod or ())


def test_a_refusal_to_disable_is_told(lab: VcsimLab, vcenter: Vcenter) -> None:
    one = machine(vcenter)
    lab.fault("disable-refused", times=1)
    with pytest.raises(Refused) as error:
        internal.disable_methods(vcenter, [one], ["RelocateVM_Task"], source="lanfree-test", why="backup")
    assert error.value.refusal is not Refusal.OUTCOME_UNKNOWN
    assert not one.disabledMethod


def test_every_privilege_is_checked(vcenter: Vcenter) -> None:
    verdicts = privileges.check(vcenter)
    assert {v.privilege.id for v in verdicts} == {p.id for p in privileges.PRIVILEGES}
    assert all(v.known and v.asked for v in verdicts), [str(v) for v in verdicts if not (v.known and v.asked)]
    assert all(v.granted for v in verdicts)


def test_a_missing_privilege_is_found(lab: VcsimLab, vcenter: Vcenter) -> None:
    lab.fault("privilege-missing", value="VirtualMachine.State.CreateSnapshot")
    verdicts = {v.privilege.id: v for v in privileges.check(vcenter, [privileges.Need.BACKUP])}
    assert not verdicts["VirtualMachine.State.CreateSnapshot"].granted
    assert set(verdicts["VirtualMachine.State.CreateSnapshot"].missing) == {"web", "db"}
    assert verdicts["VirtualMachine.State.RemoveSnapshot"].granted


def test_a_new_certificate_ends_the_trust(lab: VcsimLab) -> None:
    vcenter = Vcenter(settings(lab))
    vcenter.now()
    old = lab.thumbprint
    new = lab.new_certificate()
    vcenter.drop_connections()  # as after some idle seconds
    with pytest.raises(CertificateRefused) as error:
        vcenter.now()
    assert error.value.seen.replace(":", "").lower() == new
    assert new != old
    again = Vcenter(settings(lab, thumbprint=new))
    assert again.now() is not None
    again.close()
