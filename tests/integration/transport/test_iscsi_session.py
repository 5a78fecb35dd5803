"""Sessions and LUNs against a real tgtd: the list of commands, time limits, death, failover, reservations, leaks."""

import gc
import hashlib
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.errors import DeviceBusy, ReadFailed, TransportRefused
from proxy.transport.iscsi import (
    Command,
    CommandForbidden,
    Limits,
    Login,
    LoginFailed,
    LoginReason,
    Lun,
    ReadSession,
    RestoreToken,
    SessionLost,
    WriteSession,
    scsi,
)
from proxy.transport.iscsi import lun as lun_module
from proxy.units import KiB, MiB
from tests.integration.transport.tgt_array import (
    BACKUP,
    HOSTS,
    INITIATOR,
    RESTORE,
    SECRET,
    USER,
    Array,
    disk_image,
    free_port,
    until,
)

pytestmark = [pytest.mark.tools, pytest.mark.requires("tgtd", "root")]

QUICK = Limits(timeout=2, login_timeout=2)
"""Short times, so that a frozen array is noticed while the test still has patience."""
RESERVE_6, RELEASE_6 = bytes([0x16, 0, 0, 0, 0, 0]), bytes([0x17, 0, 0, 0, 0, 0])


class AnotherHost(WriteSession):
    """An initiator that may do everything, as the hosts of a site may: reserve and write behind our back."""

    def __init__(self, array: Array, iqn: str = HOSTS) -> None:
        login = Login(iqn, "iqn.2026-11.org.example:another-host")
        super().__init__(array.portals[0], login, QUICK, RestoreToken("anything", 0))

    def _check(self, lun: int, command: Command) -> None:
        """Nothing is forbidden to another host."""

    def does(self, lun: int, cdb: bytes, data: bytes | None = None) -> scsi.Outcome:
        view = memoryview(data) if data is not None else None
        for _ in range(3):
            outcome = self.execute(lun, [Command(cdb, data_out=view)])[0]
            if not outcome.unit_attention:
                break
        return outcome


@contextmanager
def opened(array: Array, iqn: str = BACKUP, limits: Limits = QUICK, portals: tuple[str, ...] = ()) -> Iterator[Lun]:
    lun = Lun(array.login(iqn), portals or array.portals, 1, limits)
    try:
        yield lun
    finally:
        lun.close()


def read(lun: Lun, offset: int, length: int) -> bytes:
    data = bytearray(length)
    lun.read_into(offset, memoryview(data))
    return bytes(data)


def in_threads(count: int, work: Callable[[int], None]) -> list[BaseException | None]:
    """Run in threads at once; how each ended, ``None`` for well."""
    ends: list[BaseException | None] = [None] * count

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            ends[number] = error

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return ends


def test_what_is_read_is_what_the_backing_file_holds(served: Array, image: Path) -> None:
    with opened(served) as lun:
        assert lun.capacity.size == image.stat().st_size
        data = read(lun, 0, lun.capacity.size)
    assert hashlib.sha256(data).digest() == hashlib.sha256(image.read_bytes()).digest()


def test_reads_at_any_offset_and_length_fill_the_buffer_exactly(served: Array, image: Path) -> None:
    truth = image.read_bytes()
    with opened(served) as lun:
        for offset, length in (
            (4 * MiB - 1, 3),
            (4 * MiB + 511, 1025),
            (5 * MiB - 700, 300 * KiB),
            (len(truth) - 1, 1),
        ):
            assert read(lun, offset, length) == truth[offset : offset + length]
        with pytest.raises(ReadFailed, match="ends at"):
            read(lun, len(truth) - 1, 2)


def test_many_threads_read_at_once_each_into_its_own_buffer(served: Array, image: Path) -> None:
    truth = image.read_bytes()
    with opened(served) as lun:

        def work(number: int) -> None:
            for offset in range(number * MiB, len(truth), 8 * MiB):
                assert read(lun, offset, MiB) == truth[offset : offset + MiB]

        assert in_threads(8, work) == [None] * 8


def test_a_lun_number_above_255_is_addressed_by_flat_space(array: Array, tmp_path: Path) -> None:
    low, high = disk_image(tmp_path / "low.img"), disk_image(tmp_path / "high.img")
    array.target(1, HOSTS)
    array.lun(1, 44, low, "low")  # 300 & 0xff: what a careless encoding would reach
    array.lun(1, 300, high, "high")
    lun = Lun(array.login(HOSTS), array.portals, 300, QUICK)
    try:
        assert lun.name == "t10.high"
        assert read(lun, 4 * MiB, MiB) == high.read_bytes()[4 * MiB : 5 * MiB]
    finally:
        lun.close()


@pytest.mark.parametrize(
    ("user", "secret"),
    [(USER, "not-the-secret-at-all"), ("nobody", SECRET), (None, None)],
    ids=["wrong secret", "wrong user", "no credentials"],
)
def test_wrong_chap_is_told_as_such_and_the_secret_is_not(served: Array, user: str | None, secret: str | None) -> None:
    login = Login(BACKUP, INITIATOR, user, secret)
    with pytest.raises(LoginFailed) as failed:
        ReadSession(served.portals[0], login, QUICK)
    assert failed.value.reason is LoginReason.CHAP
    assert "chap_secret_file" in failed.value.hint
    for text in (str(failed.value), repr(failed.value), failed.value.hint, repr(login), repr(failed.value.__dict__)):
        assert secret is None or secret not in text


def test_an_unknown_target_and_a_closed_port_are_told_apart(served: Array) -> None:
    with pytest.raises(LoginFailed) as unknown:
        ReadSession(served.portals[0], Login("iqn.2026-11.test.array:absent", INITIATOR), QUICK)
    assert unknown.value.reason is LoginReason.NO_TARGET
    with pytest.raises(LoginFailed, match="refused") as closed:
        ReadSession(f"127.0.0.1:{free_port()}", Login(HOSTS, INITIATOR), QUICK)
    assert closed.value.reason is LoginReason.UNREACHABLE


def test_a_missing_lun_is_refused_when_it_is_opened(served: Array) -> None:
    with pytest.raises(TransportRefused) as refused:
        Lun(served.login(BACKUP), served.portals, 9, QUICK)
    assert refused.value.reason == "lun-missing"


def test_a_backup_session_sends_no_command_outside_its_list(served: Array) -> None:
    session = ReadSession(served.portals[0], served.login(BACKUP), QUICK)
    try:
        for opcode in set(range(256)) - set(scsi.READ_COMMANDS):
            for action in range(32):
                with pytest.raises(CommandForbidden):
                    session.execute(1, [Command(bytes([opcode, action]) + bytes(14))])
        # data never leaves, not even with an opcode that is allowed
        with pytest.raises(CommandForbidden):
            session.execute(1, [Command(scsi.read(0, 1), data_out=memoryview(bytes(512)))])
        assert session.execute(1, [Command(scsi.test_unit_ready())])[0].status in {0, 2}
    finally:
        session.close()


def test_the_c_side_of_a_backup_session_moves_no_data_to_a_device_whatever_python_asks(
    served: Array, image: Path
) -> None:
    class Careless(ReadSession):
        """As if somebody had broken the list."""

        def _check(self, lun: int, command: Command) -> None:
            """Everything passes."""

    before = image.read_bytes()
    session = Careless(served.portals[0], served.login(HOSTS), QUICK)
    try:
        with pytest.raises(SessionLost):
            session.execute(1, [Command(scsi.write(0, 1), data_out=memoryview(b"x" * 512))])
    finally:
        session.close()
    assert image.read_bytes() == before


def test_a_restore_session_writes_only_to_the_unit_that_its_token_names(served: Array, tmp_path: Path) -> None:
    other = disk_image(tmp_path / "other.img")
    before = other.read_bytes()
    served.lun(3, 2, other, "lanfree-lun-0002")
    token = RestoreToken("t10.lanfree-lun-0001", 0)
    session = WriteSession(served.portals[0], served.login(RESTORE), QUICK, token)
    block = Command(scsi.write(0, 1), data_out=memoryview(b"x" * 512))
    try:
        with pytest.raises(CommandForbidden, match="not the unit"):
            session.execute(1, [block])  # not recognised yet
    finally:
        session.close()

    def connect(portal: str, login: Login, limits: Limits) -> ReadSession:
        return WriteSession(portal, login, limits, token)

    named = Lun(served.login(RESTORE), served.portals, 1, QUICK, connect=connect)
    another = Lun(served.login(RESTORE), served.portals, 2, QUICK, connect=connect)
    try:
        assert named.run([block])[0].good
        for cdb in (scsi.write(0, 1), scsi.write_same(0, 1, unmap=True), scsi.unmap(24), scsi.synchronize_cache()):
            with pytest.raises(CommandForbidden, match="not the unit"):
                another.run([Command(cdb)])
    finally:
        named.close()
        another.close()
    assert other.read_bytes() == before


def test_a_frozen_array_ends_in_an_error_in_bounded_time_and_works_again_after_the_thaw(
    served: Array, image: Path
) -> None:
    with opened(served) as lun:
        read(lun, 0, MiB)
        served.freeze()
        start = time.monotonic()
        try:
            with pytest.raises(ReadFailed):
                read(lun, 4 * MiB, MiB)
        finally:
            served.thaw()
        # one time limit for the command, then a login over each of two portals
        assert time.monotonic() - start < QUICK.timeout + 2 * QUICK.login_timeout + 3
        assert read(lun, 4 * MiB, MiB) == image.read_bytes()[4 * MiB : 5 * MiB]


def test_buffers_stay_untouched_after_a_timed_out_read_gave_them_back(served: Array) -> None:
    with opened(served, portals=served.portals[:1]) as lun:
        read(lun, 0, MiB)
        data = bytearray(MiB)
        served.freeze()
        try:
            with pytest.raises(ReadFailed):
                lun.read_into(4 * MiB, memoryview(data))
        finally:
            served.thaw()
        data[:] = b"\xee" * MiB
        assert read(lun, 9 * MiB, MiB)  # the array answers again, late answers included
        assert data == b"\xee" * MiB
        data.clear()  # raises BufferError while anybody still holds the memory


def test_a_killed_array_wakes_every_reader_at_once(served: Array) -> None:
    with opened(served, limits=Limits(timeout=30, login_timeout=2)) as lun:
        read(lun, 0, MiB)
        served.freeze()  # so that all readers are in the middle of something
        ends: list[tuple[float, BaseException | None]] = []

        def work() -> None:
            try:
                read(lun, 0, 8 * MiB)
            except ReadFailed as error:
                ends.append((time.monotonic(), error))

        readers = [threading.Thread(target=work) for _ in range(8)]
        for reader in readers:
            reader.start()
        session = lun._paths.session()
        until(lambda: session.waiting > 200, 5, "more is queued than can be outstanding")
        killed = time.monotonic()
        served.kill()
        for reader in readers:
            reader.join(10)
        assert len(ends) == 8
        assert max(at for at, _ in ends) - killed < 2


def test_reading_goes_on_over_the_other_portal(served: Array, image: Path) -> None:
    dead = f"127.0.0.1:{free_port()}"
    with opened(served, portals=(dead, served.portals[1])) as lun:
        assert lun._paths.session().portal == served.portals[1]
        assert read(lun, 4 * MiB, MiB) == image.read_bytes()[4 * MiB : 5 * MiB]


def test_a_session_that_dies_in_mid_read_is_replaced_and_the_read_is_whole(served: Array, image: Path) -> None:
    with opened(served, limits=Limits()) as lun:
        first = lun._paths.session()
        assert first.portal == served.portals[0]
        stop = threading.Event()

        def work(_: int) -> None:
            truth = image.read_bytes()
            while not stop.is_set():
                assert read(lun, 4 * MiB, MiB) == truth[4 * MiB : 5 * MiB]

        cutter = threading.Timer(0.2, lambda: cut(first))
        ender = threading.Timer(1.0, stop.set)
        cutter.start()
        ender.start()
        assert in_threads(4, work) == [None] * 4
        assert first.dead
        # the portal that failed is not the first choice now
        assert lun._paths.session().portal == served.portals[1]


def test_connections_that_break_again_and_again_never_give_wrong_data(served: Array, image: Path) -> None:
    """Also a hunt for memory that is used after it was freed: errors with tracebacks, buffers and a collector at work."""
    truth, end = image.read_bytes(), time.monotonic() + 4
    cuts, failures, reads = [0], [0], [0]

    def cutter() -> None:
        while time.monotonic() < end:
            cuts[0] += break_connections(lambda peer: peer.endswith(f":{served.port}"))
            gc.collect()
            time.sleep(0.05)

    with opened(served, HOSTS, Limits(depth=4)) as lun:

        def work(number: int) -> None:
            chosen = random.Random(number)
            buffer = memoryview(bytearray(3 * MiB))
            while time.monotonic() < end:
                length = chosen.randrange(1, len(buffer))
                offset = chosen.randrange(0, len(truth) - length)
                try:
                    lun.read_into(offset, buffer[:length])
                except ReadFailed:
                    failures[0] += 1
                    continue
                assert buffer[:length] == truth[offset : offset + length]
                reads[0] += 1

        thread = threading.Thread(target=cutter)
        thread.start()
        assert in_threads(6, work) == [None] * 6
        thread.join()
        assert cuts[0] > 5
        assert reads[0] > failures[0]
        assert read(lun, 4 * MiB, MiB) == truth[4 * MiB : 5 * MiB]


def cut(session: ReadSession) -> None:
    """Break the session's TCP connection, as a switch would."""
    break_connections(lambda peer: peer == session.portal)
    until(lambda: session.dead, 5, "the connection is cut")


def break_connections(chosen: Callable[[str], bool]) -> int:
    """Shut down the connections of this process whose peer is chosen; how many there were."""
    broken = 0
    for link in list(Path("/proc/self/fd").iterdir()):
        try:
            if not str(link.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(link.name))) as connection:
                host, port = connection.getpeername()
                if chosen(f"{host}:{port}"):
                    connection.shutdown(socket.SHUT_RDWR)
                    broken += 1
        except (OSError, ValueError):
            continue  # closed meanwhile, or not a connected IPv4 socket
    return broken


def test_another_initiators_reservation_is_waited_for(served: Array, image: Path) -> None:
    host = AnotherHost(served)
    with opened(served, HOSTS) as lun:
        read(lun, 0, MiB)
        assert host.does(1, RESERVE_6).good
        releaser = threading.Timer(0.4, lambda: host.does(1, RELEASE_6))
        releaser.start()
        start = time.monotonic()
        assert read(lun, 4 * MiB, MiB) == image.read_bytes()[4 * MiB : 5 * MiB]
        assert time.monotonic() - start > 0.3
        releaser.join()
    host.close()


def test_a_reservation_that_stays_is_device_busy(served: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lun_module, "BUSY_SECONDS", 0.5)
    host = AnotherHost(served)
    with opened(served, HOSTS) as lun:
        assert host.does(1, RESERVE_6).good
        with pytest.raises(DeviceBusy, match="RESERVATION CONFLICT"):
            read(lun, 0, MiB)
        assert host.does(1, RELEASE_6).good
        assert read(lun, 0, 512) == bytes(512)
    host.close()


def test_a_remapped_lun_is_not_read_on(served: Array, tmp_path: Path) -> None:
    with opened(served, HOSTS) as lun:
        read(lun, 0, MiB)
        served.unmap_lun(1, 1)
        served.lun(1, 1, disk_image(tmp_path / "another.img"), "another-unit")
        cut(lun._paths.session())
        # tgt's NAA stays the same, since it is made of the numbers; so the unit is told by the name that the world knows
        with pytest.raises(ReadFailed, match="another-unit"):
            read(lun, 0, MiB)


def test_a_closed_session_refuses_and_leaves_no_thread_or_descriptor(served: Array) -> None:
    def descriptors() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    with opened(served):
        pass
    before = threading.active_count(), descriptors()
    for _ in range(5):
        session = ReadSession(served.portals[0], served.login(BACKUP), QUICK)
        session.close()
        session.close()
        assert session.dead
        with pytest.raises(SessionLost, match="closed"):
            session.execute(1, [Command(scsi.test_unit_ready())])
        with pytest.raises(LoginFailed):
            ReadSession(served.portals[0], Login(BACKUP, INITIATOR, USER, "wrong"), QUICK)
        with opened(served) as lun:
            read(lun, 0, MiB)
            lun._paths.session()
    assert (threading.active_count(), descriptors()) == before


def test_a_session_closed_in_mid_read_gives_the_reader_its_error(served: Array) -> None:
    session = ReadSession(served.portals[0], served.login(BACKUP), Limits(timeout=30))
    served.freeze()
    try:
        ends: list[BaseException] = []

        def work() -> None:
            data = memoryview(bytearray(MiB))
            try:
                session.execute(1, [Command(scsi.read(0, 2048), data_in=data)])
            except SessionLost as error:
                ends.append(error)

        reader = threading.Thread(target=work)
        reader.start()
        until(lambda: reader.is_alive() and not session.waiting, 5, "the read is under way")
        session.close()
        reader.join(5)
        assert [type(end) for end in ends] == [SessionLost]
    finally:
        served.thaw()
