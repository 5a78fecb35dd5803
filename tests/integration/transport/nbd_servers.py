"""qemu-nbd and nbdkit on sockets of their own, and the certificates for TLS."""

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from tempfile import TemporaryDirectory

from proxy.command import run, spawn, stop


@dataclass(frozen=True)
class Server:
    """``process`` belongs to the context that started it; ``path``: its socket."""

    process: Popen[bytes]
    path: Path

    def uri(self, export: str = "") -> str:
        return f"nbd+unix:///{export}?socket={self.path}"


@contextmanager
def served(argv: Sequence[str | Path]) -> Iterator[Server]:
    """Starts ``argv``, in which the word SOCKET stands for the path of a new Unix socket, and waits until it listens."""
    with TemporaryDirectory(prefix="lanfree-nbd-") as directory:
        path = Path(directory) / "s"
        process = spawn([path if word == "SOCKET" else word for word in argv])
        try:
            until_listening(process, path)
            yield Server(process, path)
        finally:
            stop(process)


def qemu_nbd(image: Path, *words: str, form: str = "raw", clients: int = 8) -> list[str | Path]:
    return ["qemu-nbd", "-t", "-f", form, "-e", str(clients), "-k", "SOCKET", *words, image]


def nbdkit(*words: str) -> list[str | Path]:
    return ["nbdkit", "-f", "-U", "SOCKET", *words]


def until_listening(process: Popen[bytes], address: Path | tuple[str, int]) -> None:
    deadline = time.monotonic() + 30
    while True:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        assert time.monotonic() < deadline, f"nobody listens on {address}"
        family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
        with socket.socket(family) as client:
            try:
                client.connect(address if isinstance(address, tuple) else str(address))
            except OSError:
                time.sleep(0.02)
                continue
        return


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def certificates(directory: Path) -> Path:
    """An authority, a server for 127.0.0.1 and a client, as QEMU and libnbd look for them in one directory."""
    directory.mkdir(parents=True, exist_ok=True)
    key = ["-newkey", "rsa:2048", "-nodes", "-keyout"]
    ca = directory / "ca-cert.pem"
    run(
        ["openssl", "req", "-x509", *key, directory / "ca-key.pem", "-out", ca, "-subj", "/CN=ca", "-days", "2"],
        timeout=60,
    )
    for role, name in (("server", "127.0.0.1"), ("client", "proxy")):
        request, extension = directory / f"{role}.csr", directory / f"{role}.ext"
        run(
            ["openssl", "req", *key, directory / f"{role}-key.pem", "-out", request, "-subj", f"/CN={name}"], timeout=60
        )
        extension.write_text("subjectAltName=IP:127.0.0.1\n" if role == "server" else "extendedKeyUsage=clientAuth\n")
        signing = [
            "-CA",
            ca,
            "-CAkey",
            directory / "ca-key.pem",
            "-CAcreateserial",
            "-extfile",
            extension,
            "-days",
            "2",
        ]
        run(["openssl", "x509", "-req", "-in", request, "-out", directory / f"{role}-cert.pem", *signing], timeout=60)
    return directory
