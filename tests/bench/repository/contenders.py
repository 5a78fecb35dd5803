"""The two sides that the bench brings along: us, one process a piece of work, and the C program."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from proxy import command
from tests.bench.repository.measure import Command, Figures, measure, prepare

CHUNK = 256
FINE = 64
"""KiB: our chunks, and those of the store whose incremental ours is compared with."""


class Ours:
    """Our repository, and the states that the work begins with: empty, or with the first backup in it."""

    def __init__(
        self, home: Path, uris: Mapping[str, str], changes: Path, *, chunk: int = CHUNK, clear: bool = False
    ) -> None:
        """``uris``: of the disk as ``v1`` and ``v2``; ``changes``: where the file is that tells how they differ."""
        self.home = home
        self.saved = home.with_name(f"{home.name}-saved")
        self._uris = uris
        self._changes = changes
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
            # As the product's own entry point sets them: OpenBLAS would start a thread that spins, pydantic would look for
            # plugins in every package, and nobody needs either.
            "OPENBLAS_NUM_THREADS": "1",
            "PYDANTIC_DISABLE_PLUGINS": "__all__",
            # Byte code is made once, as it is when the product is installed, and the peers are: here by ``create``.
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(self.home.with_name("bytecode")),
        }
        return Command([sys.executable, "-m", "tests.bench.repository.ours", job, *words], env)

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
    """The C program; it knows the full backup alone."""

    def __init__(self, program: Path, store: Path, uri: str) -> None:
        self.store = store
        self._argv: list[str | Path] = [program, uri, store, "2", str(CHUNK)]

    def run(self) -> Figures:
        shutil.rmtree(self.store, ignore_errors=True)
        self.store.mkdir()
        return measure(Command(self._argv), self.store)
