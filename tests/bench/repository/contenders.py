"""The two sides that the bench brings along: us, one process a piece of work, and the C program."""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from proxy import command
from tests.bench.repository import fresh
from tests.bench.repository.measure import Command, Figures, measure, prepare

CHUNK = 256
FINE = 64
COARSE = 1024
"""KiB: our chunks; those of the store whose incremental ours is compared with; and those that make a full backup quickest."""


class Ours:
    """Our repository, and the states that the work begins with: empty, or with the first backup in it."""

    def __init__(
        self,
        home: Path,
        uris: Mapping[str, str],
        changes: Path,
        *,
        data: int = 0,
        chunk: int = CHUNK,
        clear: bool = False,
    ) -> None:
        """``uris``: of the disk as ``v1`` and ``v2``; ``changes``: where the file is that tells how they differ; ``data``:
        bytes of data on it, for which memory is made ready."""
        self.home = home
        self.saved = home.with_name(f"{home.name}-saved")
        self._uris = uris
        self._changes = changes
        self._data = data
        self._options = ("--chunk", str(chunk), *(["--clear"] if clear else []))

    def run(self, job: str) -> Figures:
        """One measurement."""
        if job == "restore":  # the time for giving a gigabyte of old pages back is nobody's
            (self.home / "restored.raw").unlink(missing_ok=True)
        if job in ("full", "parts"):
            shutil.rmtree(self.home, ignore_errors=True)
            prepare(self._command("create"))
        elif job in ("known", "scan"):
            self._copy(self.saved, self.home)
        if self._data and job in fresh.SHARE:
            fresh.provide(self.home, fresh.needed(job, self._data))
        figures = measure(self._command(job), self.home / "objects")
        if job == "full" and not self.saved.exists():
            self._copy(self.home, self.saved)
        return figures

    def end(self) -> None:
        """Nothing stays behind."""
        for folder in (self.home, self.saved):
            shutil.rmtree(folder, ignore_errors=True)

    def _command(self, job: str) -> Command:
        uri = self._uris["v1" if job in ("full", "parts") else "v2"]
        words = ("--directory", str(self.home), "--uri", uri, "--changes", str(self._changes), *self._options)
        env = {
            # As the product's own entry point sets it: OpenBLAS would start a thread that spins.
            "OPENBLAS_NUM_THREADS": "1",
            # Byte code is made once, as it is when the product is installed, and the peers are: here by ``create``.
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(self.home.with_name("bytecode")),
            # What other packages on this machine have Python do at its start (``.pth``) is not ours, and in the peers'
            # environments costs nothing. So ``site`` is left out, and what it found is given.
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        return Command([sys.executable, "-S", "-m", "tests.bench.repository.ours_process", job, *words], env)

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        """Objects never change, so that links are as good as copies."""
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        for each in source.iterdir():
            if each.name != "restored.raw":
                links = ["--link"] if each.name == "objects" else []
                command.run(["cp", "--archive", *links, each, target], timeout=60)


class Comparator:
    """The C program; it knows backups alone. Its states are kept as ours are."""

    def __init__(
        self, program: Path, store: Path, uris: Mapping[str, str], changes: Sequence[tuple[int, int]], data: int
    ) -> None:
        """``changes``: offsets and lengths of what differs between the disk's two versions; the rest as for ``Ours``."""
        self.store = store
        self.saved = store.with_name(f"{store.name}-saved")
        self._program = program
        self._uris = uris
        self._changes = changes
        self._data = data

    def run(self, job: str) -> Figures:
        """One measurement."""
        fresh_store(self.store, self.saved if job != "full" else None)
        words: list[str | Path] = [
            self._program,
            self._uris["v1" if job == "full" else "v2"],
            self.store,
            "2",
            str(CHUNK),
        ]
        if job == "known":
            listed = self.store.with_name(f"{self.store.name}-changes")
            listed.write_text("".join(f"{offset} {length}\n" for offset, length in self._changes))
            words.append(listed)
        fresh.provide(self.store.parent, fresh.needed(job, self._data))
        figures = measure(Command(words), self.store)
        if job == "full" and not self.saved.exists():
            fresh_store(self.saved, self.store)
        return figures

    def end(self) -> None:
        """Nothing stays behind."""
        for folder in (self.store, self.saved):
            shutil.rmtree(folder, ignore_errors=True)


def fresh_store(store: Path, content: Path | None) -> None:
    """A directory anew, with what another one has: files never change, so that links are as good as copies."""
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir()
    for each in content.iterdir() if content is not None else ():
        (store / each.name).hardlink_to(each)
