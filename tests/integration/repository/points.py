"""Restore points for tests that need nothing special of them."""

from datetime import datetime

from proxy.model import Consistency, ImageInfo, Level, MachineConfiguration, RestorePoint
from proxy.repository import Repository


def back_up(repository: Repository, run: str, data: bytes, moment: datetime, parent: ImageInfo | None) -> RestorePoint:
    """Write a whole disk and seal it."""
    with repository.image_writer("vda", len(data), parent) as writer:
        writer.write(0, memoryview(data))
        image = writer.seal()
    return repository.seal(
        RestorePoint(
            id="",
            machine="m1",
            machine_name="web",
            host="h1",
            run=run,
            created_at=moment,
            level=Level.FULL,
            consistency=Consistency.CRASH,
            images=(image,),
            configuration=MachineConfiguration("libvirt-xml", "<domain/>", b""),
        )
    )


def contents(repository: Repository) -> dict[str, bytes]:
    """Every restore point's disk, by the point's id."""
    found = {}
    for point in repository.points():
        with repository.open_image(point, "vda") as image:
            out = bytearray(image.size)
            image.read_into(0, memoryview(out))
            found[point.id] = bytes(out)
    return found
