"""A real S3 server (Versity S3 Gateway over a directory) for tests: on a loopback port, ended by its process id."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import boto3.session
from botocore.config import Config

from proxy import command
from proxy.repository.stores.s3_settings import S3Settings

SETUP = Path(__file__).parents[3] / "appliance/setup/s3server.sh"
KEY = "lanfree-tests"
SECRET = "a secret of no worth"  # with blanks: they must survive the credentials file
REGION = "us-east-1"

# Seconds for the server to listen; it takes a tenth of one on an idle machine.
STARTING = 30.0


def program() -> str:
    """Where the server's program is, or would be: what a test that uses it ``requires``."""
    return subprocess.run([SETUP, "--path"], check=True, capture_output=True, text=True).stdout.strip()


@dataclass(frozen=True)
class S3Server:
    """``endpoint``: its URL; ``data``: where its buckets are directories; ``credentials``: a file in the AWS format."""

    endpoint: str
    data: Path
    credentials: Path

    def client(self, endpoint: str = "") -> Any:
        """A plain client for what Lanfree does not do: make buckets, look at versions."""
        return _session().client(
            "s3",
            endpoint_url=endpoint or self.endpoint,
            region_name=REGION,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            config=Config(s3={"addressing_style": "path"}),
        )

    def bucket(self, name: str, *, locked: bool = False) -> str:
        """Make a bucket, with object lock (and so with versions) if asked for."""
        self.client().create_bucket(Bucket=name, ObjectLockEnabledForBucket=locked)
        return name

    def settings(self, bucket: str, **more: Any) -> S3Settings:
        """Settings that reach this server; ``endpoint`` may be a proxy in front of it."""
        given = {"endpoint": self.endpoint, "credentials_file": self.credentials, "patience": 10.0, **more}
        return S3Settings(bucket, **given)


@cache
def _session() -> boto3.session.Session:
    return boto3.session.Session()


@contextmanager
def s3_server(directory: Path) -> Iterator[S3Server]:
    """Start one over ``directory``, which gets its buckets, their versions and its log."""
    data, versions = directory / "buckets", directory / "versions"
    data.mkdir(parents=True)
    versions.mkdir()
    credentials = directory / "credentials"
    credentials.write_text(f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    credentials.chmod(0o600)
    with (directory / "log").open("wb") as log:
        port = _free_port()
        address = f"127.0.0.1:{port}"
        words = [program(), "--quiet", "--keep-alive", "--port", address]
        words += ["posix", "--versioning-dir", str(versions), str(data)]
        process = command.spawn(
            words, log=log, secrets={"ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET}, env={"VGW_REGION": REGION}
        )
        try:
            _wait_for(port, process, directory / "log")
            yield S3Server(f"http://{address}", data, credentials)
        finally:
            command.stop(process, grace=0.5)  # it waits for idle connections otherwise


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + STARTING
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"the S3 server did not come up: {log.read_text(errors='replace')[-2000:]}")
