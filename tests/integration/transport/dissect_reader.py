"""Run by an interpreter of its own that has dissect.vmfs (AGPL: an oracle for tests, no part of the product); never imported.

stdin   ``{"images": [path, …], "start": bytes before the partition, "managed": bool, "ranges": {file: [[offset, length], …]}}``
stdout  ``{file: [kind, size, SHA-256]}`` for every file of the volume: the digest of the bytes in ``ranges``, of all its bytes
        where the file is not named there, ``null`` for directories and raw devices

``managed``: there is a volume manager under the file system.
"""

import hashlib
import json
import sys
from pathlib import Path

from dissect.util.stream import RangeStream
from dissect.vmfs import LVM, VMFS

STEP = 4 << 20
DIRECTORY, RAW_DEVICE = 2, 6


def main() -> None:
    asked = json.load(sys.stdin)
    handles = [partition(Path(image), asked["start"]) for image in asked["images"]]
    container = LVM(handles).volumes[0].open() if asked["managed"] else handles[0]
    answer = {}
    waiting = [("", VMFS(container).root)]
    while waiting:
        path, directory = waiting.pop()
        for entry in directory.iterdir():
            if entry.name in {".", ".."}:
                continue
            file, name = entry.file_descriptor, path + entry.name
            kind = int(file.type)
            digest = None
            if kind == DIRECTORY:
                waiting.append((name + "/", file))
            elif kind != RAW_DEVICE:
                digest = digest_of(file, asked["ranges"].get(name))
            answer[name] = [kind, file.size, digest]
    json.dump(answer, sys.stdout)


def partition(image: Path, start: int) -> RangeStream:
    return RangeStream(image.open("rb"), start, image.stat().st_size - start)


def digest_of(file, ranges) -> str:
    digest = hashlib.sha256()
    with file.open() as stream:
        for offset, length in [[0, file.size]] if ranges is None else ranges:
            stream.seek(offset)
            for start in range(0, length, STEP):
                wanted = min(STEP, length - start)
                data = stream.read(wanted)
                if len(data) != wanted:
                    raise EOFError(f"{offset + start} of {file.size}")
                digest.update(data)
    return digest.hexdigest()


main()
