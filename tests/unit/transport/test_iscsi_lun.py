"""The retry rules and the order of portals, over a device that answers what it was told: real ones seldom say it."""

import pytest

from proxy.errors import DeviceBusy, ReadFailed
from proxy.transport.iscsi import Command, Identity, Limits, Login, LoginFailed, LoginReason, Lun, ReadSession, paths
from proxy.transport.iscsi import lun as rules
from proxy.transport.iscsi.paths import Paths
from proxy.transport.iscsi.scsi import CAPACITY16, Opcode, Outcome, SenseKey, Status

GOOD = Outcome(Status.GOOD)
BLOCKS = 64
IQN = "iqn.2026-01.org.example:a"


def sense(key: SenseKey, code: int = 0) -> Outcome:
    return Outcome(Status.CHECK_CONDITION, key, code)


class Device:
    """A disk without names; ``answers`` are given to the next READs, then all are good. ``reads``: how many came."""

    def __init__(self, *answers: Outcome) -> None:
        self.answers = list(answers)
        self.reads = 0

    def execute(self, command: Command) -> Outcome:
        code = command.cdb[0]
        if code == Opcode.READ_16:
            self.reads += 1
            return self.answers.pop(0) if self.answers else GOOD
        if code == Opcode.TEST_UNIT_READY:
            return GOOD
        if command.data_in is None or (code == Opcode.INQUIRY and command.cdb[1]):
            return sense(SenseKey.ILLEGAL_REQUEST)  # no vital product data
        answer = CAPACITY16.pack(BLOCKS - 1, 512, 0, 0, 0) if code == Opcode.SERVICE_ACTION_IN_16 else bytes(36)
        command.data_in[: len(answer)] = answer
        return Outcome(Status.GOOD, residual=len(command.data_in) - len(answer))


class Session(ReadSession):
    """A session with that device; nothing is connected."""

    def __init__(self, device: Device, portal: str) -> None:
        self.device, self.portal, self.gone = device, portal, False

    @property
    def dead(self) -> bool:
        return self.gone

    def execute(self, lun: int, commands: object) -> list[Outcome]:
        assert isinstance(commands, list)
        return [self.device.execute(command) for command in commands]

    def recognised(self, lun: int, identity: Identity) -> None:
        pass

    def close(self) -> None:
        self.gone = True


def opened(device: Device) -> Lun:
    return Lun(
        Login(IQN, "iqn.x:proxy"), ["p1"], 1, Limits(), connect=lambda portal, _login, _limits: Session(device, portal)
    )


def read(device: Device) -> None:
    opened(device).read_into(0, memoryview(bytearray(512)))


ONCE = [
    Outcome(Status.TASK_ABORTED),
    sense(SenseKey.ABORTED_COMMAND, 0x4700),
    sense(SenseKey.UNIT_ATTENTION, 0x2900),
]


@pytest.mark.parametrize("answer", ONCE, ids=str)
def test_what_was_thrown_out_is_repeated_once_and_no_more(answer: Outcome) -> None:
    device = Device(answer)
    read(device)
    assert device.reads == 2
    device = Device(answer, answer)
    with pytest.raises(ReadFailed):
        read(device)
    assert device.reads == 2


BUSY = [
    Outcome(Status.BUSY),
    Outcome(Status.TASK_SET_FULL),
    Outcome(Status.RESERVATION_CONFLICT),
    sense(SenseKey.NOT_READY, 0x0401),
]


@pytest.mark.parametrize("answer", BUSY, ids=str)
def test_a_busy_device_is_asked_again_after_growing_pauses_and_given_up_after_15_seconds(
    answer: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, pauses = [100.0], list[float]()

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(rules.time, "sleep", sleep)
    monkeypatch.setattr(rules.time, "monotonic", lambda: now[0])
    device = Device(*[answer] * 8)
    read(device)
    assert pauses == pytest.approx([0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0])
    pauses.clear()
    with pytest.raises(DeviceBusy):
        read(Device(*[answer] * 100))
    assert sum(pauses) == pytest.approx(15.0)


@pytest.mark.parametrize(
    "answer",
    [sense(SenseKey.MEDIUM_ERROR, 0x1100), sense(SenseKey.HARDWARE_ERROR), sense(SenseKey.ILLEGAL_REQUEST)],
    ids=str,
)
def test_any_other_error_fails_the_read_at_once_and_is_named(answer: Outcome) -> None:
    device = Device(answer)
    with pytest.raises(ReadFailed) as failed:
        read(device)
    assert device.reads == 1
    assert str(answer) in failed.value.message


def test_bytes_that_did_not_come_fail_the_read() -> None:
    with pytest.raises(ReadFailed, match="100 bytes were missing"):
        read(Device(Outcome(Status.GOOD, residual=100)))


def test_a_portal_that_failed_comes_last_for_1_2_4_to_60_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(paths, "monotonic", lambda: now[0])
    tried: list[str] = []
    down = {"p1"}

    def connect(portal: str) -> ReadSession:
        tried.append(portal)
        if portal in down:
            raise LoginFailed(IQN, portal, LoginReason.UNREACHABLE, "refused")
        return Session(Device(), portal)

    def order() -> list[str]:
        tried.clear()
        made.session().close()  # dies, so that the next call has to look again
        now[0] += 0.5
        return list(tried)

    made = Paths(IQN, ["p1", "p2"], connect)
    assert order() == ["p1", "p2"]
    down.clear()
    assert order() == ["p1"], "both failed, and p1 did first"
    assert order() == ["p2"], "a session that died is a failure too"
    down.update({"p1", "p2"})
    waits = []
    for _ in range(8):
        with pytest.raises(LoginFailed):
            made.session()
        waits.append(made._paths[0].not_before - now[0])
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60]
