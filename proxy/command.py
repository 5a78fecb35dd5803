"""The only door to other programs: C locale, stdin closed or given, a deadline always, output kept for the error.

Secrets go in through ``secrets`` (environment variables of the child, never argv) and are masked in whatever is kept.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from proxy.errors import ToolFailed

MASK = "********"


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float,
    stdin: bytes | None = None,
    secrets: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> "Result":
    """Run to the end. Raises ``ToolFailed`` when it cannot start, exceeds ``timeout`` seconds, or (``check``) exits not 0."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout,
            env=_environment(env, secrets),
            check=False,
        )
    except FileNotFoundError:
        raise ToolFailed(words[0], "is not installed", "'lanfree doctor' tells which package has it") from None
    except subprocess.TimeoutExpired as error:
        raise ToolFailed(words[0], f"did not end within {timeout:g} s", _masked(error.stderr or b"", secrets)) from None
    result = Result(done.returncode, done.stdout, _masked(done.stderr, secrets))
    if check and done.returncode != 0:
        said = result.stderr or _masked(done.stdout, secrets)
        raise ToolFailed(" ".join(words[:2]), f"ended with {done.returncode}", said)
    return result


def spawn(
    argv: Sequence[str | Path],
    *,
    log: IO[bytes] | int = subprocess.DEVNULL,
    secrets: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a server that the caller owns and must end. It does not receive the terminal's signals."""
    words = [str(word) for word in argv]
    try:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT if log != subprocess.DEVNULL else subprocess.DEVNULL,
            env=_environment(env, secrets),
            start_new_session=True,
        )
    except FileNotFoundError:
        raise ToolFailed(words[0], "is not installed", "'lanfree doctor' tells which package has it") from None


class Result:
    """How a program ended: ``code``, ``stdout`` as bytes, ``stderr`` as masked text."""

    __slots__ = ("code", "stderr", "stdout")

    def __init__(self, code: int, stdout: bytes, stderr: str) -> None:
        self.code = code
        self.stdout = stdout
        self.stderr = stderr

    @property
    def text(self) -> str:
        """stdout as text."""
        return self.stdout.decode(errors="replace")


def stop(process: subprocess.Popen[bytes], *, grace: float = 5.0) -> None:
    """End a server started with ``spawn``: ask, wait ``grace`` seconds, then insist."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _environment(env: Mapping[str, str] | None, secrets: Mapping[str, str] | None) -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C", **(env or {}), **(secrets or {})}


def _masked(output: bytes, secrets: Mapping[str, str] | None) -> str:
    text = output.decode(errors="replace")
    for secret in (secrets or {}).values():
        text = text.replace(secret, MASK) if secret else text
    return text
