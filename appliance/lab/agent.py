"""Talking to a lab guest through its agent, with virsh: programs run and files read in the guest."""

import base64
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from appliance.lab.hosts import Host
from appliance.lab.processes import wait_for
from proxy.errors import FormatError, ToolFailed

# One agent message is base64 inside JSON; libvirt takes up to 10 MiB.
_CHUNK = 1024 * 1024


def ask(
    host: Host, machine: str, command: str, arguments: Mapping[str, object] | None = None, *, timeout: float = 10.0
) -> Any:
    """One agent command; returns what it returned. Raises ``ToolFailed`` when the agent does not answer or refuses."""
    words = json.dumps({"execute": command, "arguments": dict(arguments)} if arguments else {"execute": command})
    seconds = str(max(1, round(timeout)))
    # virsh gets a little longer than the agent, so that the agent's own words are what is reported.
    done = host.virsh("qemu-agent-command", machine, words, "--timeout", seconds, timeout=timeout + 10)
    try:
        return json.loads(done.text)["return"]
    except (ValueError, KeyError):
        raise FormatError(f"guest agent of {machine}", f"answered {done.text[:200]!r}") from None


def answers(host: Host, machine: str) -> bool:
    """Whether the guest agent answers now."""
    try:
        ask(host, machine, "guest-ping", timeout=2)
    except ToolFailed:
        return False
    return True


def wait_until_answers(host: Host, machine: str, *, timeout: float) -> None:
    """Raises ``ToolFailed`` when the agent does not answer within ``timeout`` seconds."""
    if not wait_for(lambda: answers(host, machine), timeout=timeout, every=0.3):
        raise ToolFailed(f"guest agent of {machine}", f"did not answer within {timeout:g} s", "see the console log")


def run(host: Host, machine: str, argv: Sequence[str], *, timeout: float) -> tuple[int, bytes]:
    """Run a program in the guest to its end: exit code (128 + signal if it was killed) and stdout."""
    path, *rest = argv
    started = ask(host, machine, "guest-exec", {"path": path, "arg": rest, "capture-output": True})
    deadline = time.monotonic() + timeout
    while not (status := ask(host, machine, "guest-exec-status", started))["exited"]:
        if time.monotonic() > deadline:
            raise ToolFailed(f"{path} in {machine}", f"did not end within {timeout:g} s", "")
        time.sleep(0.1)
    code = status["exitcode"] if "exitcode" in status else 128 + status["signal"]
    return code, base64.b64decode(status.get("out-data", ""))


def read(host: Host, machine: str, path: str) -> bytes:
    """A whole file of the guest. Raises ``ToolFailed`` when it cannot be opened."""
    handle = ask(host, machine, "guest-file-open", {"path": path, "mode": "r"})
    parts = []
    try:
        while True:
            answer = ask(host, machine, "guest-file-read", {"handle": handle, "count": _CHUNK})
            parts.append(base64.b64decode(answer["buf-b64"]))
            if answer["eof"]:
                return b"".join(parts)
    finally:
        ask(host, machine, "guest-file-close", {"handle": handle})


def write(host: Host, machine: str, path: str, data: bytes) -> None:
    """Create or replace a small file (up to 1 MiB) in the guest."""
    handle = ask(host, machine, "guest-file-open", {"path": path, "mode": "w"})
    try:
        ask(host, machine, "guest-file-write", {"handle": handle, "buf-b64": base64.b64encode(data).decode()})
    finally:
        ask(host, machine, "guest-file-close", {"handle": handle})
