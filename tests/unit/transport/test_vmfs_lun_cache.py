"""The cache in front of a file system's structures."""

import threading

from proxy.transport.vmfs import Subject
from proxy.transport.vmfs.lun import PAGE, Metadata


class SlowLun:
    """Its content changes while the first read is under way."""

    size = 4 * PAGE

    def __init__(self) -> None:
        self.content = b"o"
        self.reading = threading.Event()
        self.go_on = threading.Event()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        seen = self.content
        self.reading.set()
        assert self.go_on.wait(10)
        buffer[:] = seen * len(buffer)


def test_what_was_read_before_forget_is_not_kept_after_it() -> None:
    lun = SlowLun()
    metadata = Metadata(lun, Subject("san", "vda"))
    first = threading.Thread(target=metadata.read, args=(0, 4, "old"))
    first.start()
    assert lun.reading.wait(10)
    lun.content = b"n"
    metadata.forget()
    lun.go_on.set()
    first.join()
    assert metadata.read(0, 4, "new") == b"nnnn"


def test_only_so_many_pages_are_kept() -> None:
    lun = SlowLun()
    lun.go_on.set()
    metadata = Metadata(lun, Subject("san", "vda"), pages=1)
    assert metadata.read(0, 4, "first") == b"oooo"
    assert metadata.read(PAGE, 4, "second") == b"oooo"
    lun.content = b"n"
    assert metadata.read(PAGE, 4, "second again") == b"oooo"
    assert metadata.read(0, 4, "first again") == b"nnnn"
