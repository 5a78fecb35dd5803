"""Copy everything from one repository directory to another: source, target, cache. Prints a line for every point."""

import sys
from pathlib import Path

from proxy import repository as repositories
from proxy.repository.copy import copy_points

SECRET = repositories.KeyFile(bytes(range(32)))
OTHER = repositories.KeyFile(bytes(range(1, 33)))


def main(source: str, target: str, cache: str) -> None:
    with (
        repositories.open(repositories.PosixStore(Path(source)), secret=SECRET, cache=Path(cache)) as here,
        repositories.open(repositories.PosixStore(Path(target)), secret=OTHER, cache=Path(cache)) as there,
    ):
        print("ready", flush=True)
        for copied in copy_points(here, there):
            print(copied.outcome.value, copied.point, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
