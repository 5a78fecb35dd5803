"""How long the first look into a just-made restore point takes, beside the bare start of the appliance on the same disk.

python tests/bench/mounter/bench_browse.py [--rounds N]
"""

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

import guestfs

from appliance.config import load
from appliance.kvm import kvm_works
from appliance.wiring import Services
from tests.integration.appliance.point_maker import PointMaker

SIZE = 256 << 20


def disk(directory: Path) -> Path:
    """A root file system with nothing in it that is not asked for."""
    root, image = directory / "root", directory / "disk.img"
    for name in ("bin", "etc", "lib", "sbin", "usr", "var"):
        (root / name).mkdir(parents=True)
    (root / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\n')
    (root / "etc/fstab").write_text("LABEL=ROOT / ext4 defaults 0 1\n")
    image.touch()
    os.truncate(image, SIZE)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-L", "ROOT", "-d", str(root), str(image)], check=True)
    return image


def bare_launch(image: Path) -> float:
    """Seconds of libguestfs alone, without us."""
    os.environ["LIBGUESTFS_BACKEND_SETTINGS"] = "" if kvm_works()[0] else "force_tcg"
    appliance = guestfs.GuestFS(python_return_dict=True)
    appliance.set_backend("direct")
    appliance.set_memsize(768)
    appliance.add_drive_opts(str(image), readonly=True, format="raw")
    started = time.monotonic()
    appliance.launch()
    took = time.monotonic() - started
    appliance.close()
    return took


def looks(directory: Path, reader: str, rounds: int, image: Path | None) -> list[tuple[float, float]]:
    """Seconds to the first listing, and of a second one in the same session. ``image``: to make the restore point of."""
    configuration = directory / f"{reader}.toml"
    configuration.write_text(
        f"[state]\ndirectory = '{directory}/state'\n[repository]\npath = '{directory}/repository'\nunencrypted = true\n"
        f"[files]\nreader = '{reader}'\n"
    )
    with Services(load(configuration)) as services:
        if image is not None:
            services.make_repository()
            PointMaker(services.repository).make("web1", {"vda": image})
        (point,) = services.repository.points()
        found = []
        for _ in range(rounds):
            started = time.monotonic()
            with services.mount(point) as session:
                session.list_directory(b"/etc")
                first = time.monotonic()
                session.list_directory(b"/")
                found.append((first - started, time.monotonic() - first))
        return found


def main() -> None:
    """Print medians."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--rounds", type=int, default=3)
    rounds = asked.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="lanfree-bench-") as place:
        image = disk(Path(place))
        launch = median(bare_launch(image) for _ in range(rounds))
        print(f"bare start of an appliance: {launch:.2f} s")
        for reader, goal in (("auto", ""), ("appliance", f" (goal: {launch + 1:.2f} s)")):
            seen = looks(Path(place), reader, rounds, image if reader == "auto" else None)
            first, warm = (median(each) for each in zip(*seen, strict=True))
            print(f"reader {reader}: first listing {first:.2f} s{goal}, a second one {warm * 1000:.1f} ms (goal: 300)")


if __name__ == "__main__":
    main()
