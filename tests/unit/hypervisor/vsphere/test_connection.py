"""Logging in and staying so, the certificate, what is asked twice and what never is."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.errors import CertificateRefused, ConfigurationError, HostUnreachable, HypervisorError
from proxy.hypervisor.vsphere import connection
from proxy.hypervisor.vsphere.connection import Vcenter, vim
from proxy.hypervisor.vsphere.faults import Refusal, Refused
from tests.unit.hypervisor.vsphere.scripted_vcenter import CUT, ScriptedVcenter, fault

# Each test speaks TLS to a server of its own, in the many ways in which a vCenter breaks off.
pytestmark = pytest.mark.slow

Connect = Callable[..., Vcenter]

TASK = '<returnval type="Task">task-1</returnval>'


def machine(vcenter: Vcenter) -> object:
    return vcenter.object(vim.VirtualMachine, "vm-1")


def power_off(vcenter: Vcenter) -> object:
    return vcenter.object(vim.VirtualMachine, "vm-1").PowerOffVM_Task()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_PAUSE", 0.01)


class TestSession:
    def test_the_first_call_logs_in_and_later_ones_do_not(self, server: ScriptedVcenter, connect: Connect) -> None:
        vcenter = connect()
        assert server.calls["Login"] == 0
        assert vcenter.now().year == 2026
        vcenter.now()
        assert server.calls["Login"] == 1
        assert vcenter.content.about.apiVersion == "8.0.3.0"

    def test_the_newest_version_that_both_know_is_spoken(self, connect: Connect) -> None:
        vcenter = connect()
        vcenter.now()
        assert vcenter._stub.versionId == '"urn:vim25/8.0.3.0"'

    def test_an_ended_session_is_renewed_within_the_call(self, server: ScriptedVcenter, connect: Connect) -> None:
        vcenter = connect()
        vcenter.now()
        server.end_sessions()
        assert vcenter.now().year == 2026
        assert server.calls["Login"] == 2

    def test_a_call_that_changes_something_is_made_again_when_it_was_refused_for_want_of_a_session(
        self, server: ScriptedVcenter, connect: Connect
    ) -> None:
        vcenter = connect()
        vcenter.now()
        server.script("PowerOffVM_Task", fault("NotAuthenticated"), TASK)
        assert str(power_off(vcenter)) == "'vim.Task:task-1'"
        assert server.calls["PowerOffVM_Task"] == 2

    def test_a_server_that_refuses_every_session_is_not_asked_for_ever(
        self, server: ScriptedVcenter, connect: Connect
    ) -> None:
        vcenter = connect()
        server.script("CurrentTime", *[fault("NotAuthenticated")] * 10)
        with pytest.raises(Refused) as error:
            vcenter.now()
        assert error.value.fault == "NotAuthenticated"
        assert server.calls["Login"] <= 1 + connection.LOGINS_PER_CALL

    def test_the_password_is_read_again_at_each_login(self, server: ScriptedVcenter, connect: Connect) -> None:
        vcenter = connect()
        vcenter.now()
        server.password_file.write_text("secret-2\n")
        server.end_sessions()
        vcenter.now()
        assert server.passwords == ["secret-1", "secret-2"]

    def test_threads_that_find_the_session_ended_log_in_once(self, server: ScriptedVcenter, connect: Connect) -> None:
        vcenter = connect()
        vcenter.now()
        server.end_sessions()
        threads = [threading.Thread(target=vcenter.now) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert server.calls["Login"] == 2

    def test_sessions_that_end_again_and_again_under_many_threads_cost_no_call(
        self, server: ScriptedVcenter, connect: Connect
    ) -> None:
        vcenter = connect()
        server.end_after = 20
        failed: list[Exception] = []

        def work() -> None:
            try:
                for _ in range(15):
                    vcenter.now()
            except Exception as error:  # noqa: BLE001 - of a thread: whatever it is, the test has to see it
                failed.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert failed == []
        assert 3 <= server.calls["Login"] <= 5

    def test_closing_logs_out_and_the_next_call_connects_again(self, server: ScriptedVcenter, connect: Connect) -> None:
        vcenter = connect()
        vcenter.now()
        vcenter.close()
        vcenter.close()
        assert server.calls["Logout"] == 1
        vcenter.now()
        assert server.calls["Login"] == 2

    def test_a_session_is_kept_alive_while_nobody_calls(self, server: ScriptedVcenter, connect: Connect) -> None:
        vcenter = connect(keep_alive=0.05)
        vcenter.now()
        enough = threading.Event()
        for _ in range(200):
            if server.calls["CurrentTime"] >= 4 or enough.wait(0.02):
                break
        assert server.calls["CurrentTime"] >= 4
        vcenter.close()
        calls = server.calls["CurrentTime"]
        enough.wait(0.2)
        assert server.calls["CurrentTime"] <= calls + 1


class TestPassword:
    def test_a_wrong_password_is_told_without_the_password(self, server: ScriptedVcenter, connect: Connect) -> None:
        server.script("Login", fault("InvalidLogin"))
        with pytest.raises(ConfigurationError, match=r"refuses user backup@vsphere\.local") as error:
            connect().now()
        assert "secret-1" not in f"{error.value.message} {error.value.hint}"
        assert server.calls["Login"] == 1  # more of them lock the account

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
    def test_a_password_that_others_can_read_is_not_taken(
        self, mode: int, server: ScriptedVcenter, connect: Connect
    ) -> None:
        server.password_file.chmod(mode)
        with pytest.raises(ConfigurationError, match="can be read by others"):
            connect().now()
        assert server.calls["Login"] == 0

    @pytest.mark.parametrize("content", [b"", b"\nsecret", b"\xff\xfe"])
    def test_a_file_without_a_password_is_told(self, content: bytes, server: ScriptedVcenter, connect: Connect) -> None:
        server.password_file.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"is empty|cannot be read"):
            connect().now()

    def test_a_missing_file_is_told(self, tmp_path: Path, connect: Connect) -> None:
        with pytest.raises(ConfigurationError, match="No such file"):
            connect(password_file=tmp_path / "nowhere").now()


class TestCertificate:
    def test_another_certificate_is_refused_and_nothing_is_sent(
        self, server: ScriptedVcenter, connect: Connect
    ) -> None:
        wrong = "ab" * 32
        with pytest.raises(CertificateRefused) as error:
            connect(thumbprint=wrong).now()
        assert error.value.seen.replace(":", "").lower() == server.thumbprint
        assert error.value.seen in error.value.message
        assert ":".join(["AB"] * 32) in error.value.message
        assert not server.calls

    def test_a_certificate_that_changes_while_logged_in_is_refused_on_the_next_connection(
        self, server: ScriptedVcenter, connect: Connect, impatient: None
    ) -> None:
        vcenter = connect()
        vcenter.now()
        server.stop()
        new = server.new_certificate()
        server.start()
        before = server.calls.copy()
        for _ in range(3):  # pyVmomi's own check is left out from the second connection on
            with pytest.raises(CertificateRefused) as error:
                vcenter.now()
            assert error.value.seen.replace(":", "").lower() == new
        assert server.calls == before

    def test_a_bundle_with_its_authority_is_enough(self, server: ScriptedVcenter, connect: Connect) -> None:
        assert connect(thumbprint="", ca_bundle=server.certificate).now().year == 2026

    def test_with_a_bundle_a_stranger_is_refused_and_told_by_thumbprint(
        self, server: ScriptedVcenter, connect: Connect, tmp_path: Path
    ) -> None:
        bundle = tmp_path / "bundle.pem"
        bundle.write_bytes(server.certificate.read_bytes())
        server.stop()
        new = server.new_certificate()
        server.start()
        with pytest.raises(CertificateRefused) as error:
            connect(thumbprint="", ca_bundle=bundle).now()
        assert error.value.seen.replace(":", "").lower() == new
        assert not server.calls

    def test_bundle_and_thumbprint_must_both_hold(self, server: ScriptedVcenter, connect: Connect) -> None:
        with pytest.raises(CertificateRefused):
            connect(thumbprint="ab" * 32, ca_bundle=server.certificate).now()

    def test_a_bundle_that_cannot_be_read_is_told(self, tmp_path: Path, connect: Connect) -> None:
        broken = tmp_path / "broken.pem"
        broken.write_text("no certificate")
        with pytest.raises(ConfigurationError, match="CA bundle"):
            connect(thumbprint="", ca_bundle=broken).now()


class TestBrokenCalls:
    def test_a_reading_call_is_made_again_when_the_connection_breaks(
        self, server: ScriptedVcenter, connect: Connect, impatient: None
    ) -> None:
        vcenter = connect()
        vcenter.now()
        server.script("CurrentTime", CUT, CUT)
        assert vcenter.now().year == 2026
        assert server.calls["CurrentTime"] == 4

    def test_a_call_that_changes_something_is_never_sent_twice(
        self, server: ScriptedVcenter, connect: Connect, impatient: None
    ) -> None:
        vcenter = connect()
        vcenter.now()
        server.script("PowerOffVM_Task", CUT, TASK)
        with pytest.raises(Refused) as error:
            power_off(vcenter)
        assert error.value.refusal is Refusal.OUTCOME_UNKNOWN
        assert server.calls["PowerOffVM_Task"] == 1

    def test_a_call_of_which_nothing_was_sent_waits_for_the_restart(
        self, server: ScriptedVcenter, connect: Connect, impatient: None
    ) -> None:
        vcenter = connect()
        vcenter.now()
        server.stop()
        vcenter.drop_connections()  # as after some idle seconds: the next call connects
        server.script("PowerOffVM_Task", TASK)
        back = threading.Timer(0.2, server.start)
        back.start()
        assert str(power_off(vcenter)) == "'vim.Task:task-1'"
        back.join()
        assert server.calls["PowerOffVM_Task"] == 1

    @pytest.mark.parametrize("method", ["CurrentTime", "Login"])
    def test_a_vcenter_that_is_still_starting_is_waited_for(
        self, method: str, server: ScriptedVcenter, connect: Connect, impatient: None
    ) -> None:
        vcenter = connect()
        vcenter.now()
        server.end_sessions()
        server.script(method, "503", "502", "503")
        server.script("GET", "503")
        assert vcenter.now().year == 2026

    def test_patience_ends(self, server: ScriptedVcenter, connect: Connect, impatient: None) -> None:
        vcenter = connect(restart_patience=0.3)
        vcenter.now()
        server.stop()
        with pytest.raises(HostUnreachable, match=r"for 0\.3 s"):
            vcenter.now()

    def test_a_vcenter_that_never_answered_is_not_waited_for(self, server: ScriptedVcenter, connect: Connect) -> None:
        server.stop()
        with pytest.raises(HostUnreachable, match="refused"):
            connect(restart_patience=600.0).now()

    def test_a_server_that_is_no_vcenter_is_told_at_once(self, server: ScriptedVcenter, connect: Connect) -> None:
        server.script("GET", "404")
        with pytest.raises(HypervisorError, match="HTTP 404") as error:
            connect(restart_patience=600.0).now()
        assert "host and port" in error.value.hint

    def test_a_web_server_that_is_something_else_is_told(self, server: ScriptedVcenter, connect: Connect) -> None:
        server.script("GET", "<html><p>It works!")
        with pytest.raises(HostUnreachable, match="list of API versions"):
            connect(restart_patience=600.0).now()

    def test_a_vcenter_that_speaks_no_version_that_we_know_is_spoken_to_in_the_oldest(
        self, server: ScriptedVcenter, connect: Connect
    ) -> None:
        server.script(
            "GET", "<namespaces><namespace><name>urn:vim25</name><version>1.1</version></namespace></namespaces>"
        )
        assert connect().now().year == 2026

    def test_an_answer_that_was_cut_off_is_as_good_as_none(
        self, server: ScriptedVcenter, connect: Connect, impatient: None
    ) -> None:
        vcenter = connect()
        vcenter.now()
        server.script("PowerOffVM_Task", '<returnval type="Task">task-1')
        server.script("CurrentTime", "<returnval>2026-")
        with pytest.raises(Refused) as error:
            power_off(vcenter)
        assert error.value.refusal is Refusal.OUTCOME_UNKNOWN
        assert vcenter.now().year == 2026

    def test_answers_that_stay_no_xml_are_told_soon(
        self, server: ScriptedVcenter, connect: Connect, impatient: None
    ) -> None:
        server.script("CurrentTime", *["<returnval>notes with \x01</returnval>"] * 5)
        with pytest.raises(Refused, match="no XML") as error:
            connect(restart_patience=600.0).now()
        assert error.value.refusal is Refusal.UNREADABLE
        assert server.calls["CurrentTime"] == connection.UNPARSED

    @pytest.mark.parametrize("answer", ["<returnval>task-1</returnval>", "<nothing/>", "<returnval>yes</returnval>"])
    def test_an_answer_that_nobody_understands_is_told_and_not_asked_for_again(
        self, answer: str, server: ScriptedVcenter, connect: Connect
    ) -> None:
        server.script("CurrentTime", answer.replace("task-1", "now"))
        server.script("PowerOffVM_Task", answer)
        vcenter = connect()
        for call in (vcenter.now, lambda: power_off(vcenter)):
            with pytest.raises(Refused) as error:
                call()
            assert error.value.refusal is Refusal.UNREADABLE
        assert (server.calls["CurrentTime"], server.calls["PowerOffVM_Task"]) == (1, 1)


class TestFaults:
    def test_a_fault_comes_out_as_ours_with_its_words(self, server: ScriptedVcenter, connect: Connect) -> None:
        inside = (
            '<object type="VirtualMachine">vm-1</object><privilegeId>VirtualMachine.Interact.PowerOff</privilegeId>'
        )
        server.script(
            "PowerOffVM_Task", fault("NoPermission", inside, "Permission to perform this operation was denied.")
        )
        with pytest.raises(Refused) as error:
            power_off(connect())
        assert error.value.refusal is Refusal.NO_PERMISSION
        assert (error.value.privilege, error.value.subject) == ("VirtualMachine.Interact.PowerOff", "vm-1")
        assert "PowerOffVM_Task of vm-1" in error.value.message
        assert "Permission to perform this operation was denied." in error.value.message

    def test_a_property_is_read_through_the_same_door(self, server: ScriptedVcenter, connect: Connect) -> None:
        server.script("Fetch", fault("ManagedObjectNotFound", '<obj type="VirtualMachine">vm-1</obj>'))
        with pytest.raises(Refused) as error:
            _ = machine(connect()).name
        assert (error.value.refusal, error.value.subject) == (Refusal.GONE, "vm-1")

    def test_a_method_that_the_servers_version_does_not_have_is_not_supported(
        self, server: ScriptedVcenter, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        vcenter = connect()
        monkeypatch.setattr(vcenter._logged_in().soap, "version", "vim.version.version1")
        with pytest.raises(Refused) as error:
            machine(vcenter).CreateSnapshotEx_Task(name="x", memory=False)
        assert error.value.refusal is Refusal.NOT_SUPPORTED
