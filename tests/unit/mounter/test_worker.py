"""The worker's side of a walk: the next batch is made ahead, and what goes wrong with it belongs to its own request."""

from collections.abc import Iterator, Sequence

import pytest

from mounter.batch import entries_from_data
from mounter.memory import MemoryFilesystem, MemoryVolume
from mounter.ports import FileEntry, FoundVolume, Volume, identified
from mounter.worker import _Server
from proxy.errors import MountFailed

(VOLUME,) = identified([FoundVolume("/dev/sda", "ext4", "", "u", 1)])


class Damaged(MemoryFilesystem):
    """A walk that breaks after ``good`` batches; ``made`` counts those that were asked for."""

    def __init__(self, good: int) -> None:
        memory = MemoryVolume(VOLUME)
        for number in range(12):
            memory.add_file(b"/%02d" % number, b"")
        super().__init__([memory])
        self._good = good
        self.made = 0

    def walk(self, volume: Volume) -> Iterator[Sequence[FileEntry]]:
        for batch in super().walk(volume):
            self.made += 1
            if self.made > self._good:
                raise MountFailed("the volume", "it is damaged here")
            yield batch


def walking(filesystem: Damaged) -> tuple[_Server, dict[str, object]]:
    server = _Server()
    server._filesystem = filesystem
    reply, _ = server.answer({"operation": "walk", "volume": VOLUME.id})
    return server, {"operation": "next", "stream": reply["stream"]}


def test_the_next_batch_is_made_before_it_is_asked_for_and_no_other() -> None:
    filesystem = Damaged(good=99)
    server, request = walking(filesystem)
    paths: list[bytes] = []
    for count in (1, 2, 3, 4):
        _, data = server.answer(request)
        paths += [e.path for e in entries_from_data(data)]
        server.prepare()
        server.prepare()
        assert filesystem.made == min(4, count + 1)
    assert paths == [b"/%02d" % number for number in range(12)]
    assert server.answer(request) == ({"end": True}, b"")


def test_an_error_comes_after_all_that_was_read_before_it() -> None:
    server, request = walking(Damaged(good=1))
    assert len(entries_from_data(server.answer(request)[1])) == 3
    server.prepare()
    with pytest.raises(MountFailed, match="damaged here"):
        server.answer(request)


def test_a_walk_that_is_given_up_is_not_prepared() -> None:
    filesystem = Damaged(good=99)
    server, request = walking(filesystem)
    server.answer(request)
    server.answer({"operation": "forget", "stream": request["stream"]})
    server.prepare()
    assert filesystem.made == 1
