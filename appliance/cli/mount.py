"""``lanfree mount``, ``umount`` and ``mounts``: restore points as directories, for programs that know nothing of us."""

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from appliance import mounts
from appliance.auditing import audit
from appliance.cli.app import CONTEXT, app
from appliance.cli.export import Point, span
from appliance.cli.output import INTERNAL, Output, plain, table
from appliance.mounts import MountRecord
from mounter.fuse.layout import Layout
from mounter.fuse.mounted import MountOptions
from proxy.errors import Cancelled, LanfreeError, MountFailed, kind_of


@app.command()
def mount(
    point: Point,
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="An empty directory.")],
    layout: Annotated[
        Layout, typer.Option(help="tree: as the guest has its files; volumes: a directory for each volume.")
    ] = Layout.TREE,
    allow_other: Annotated[
        bool, typer.Option("--allow-other", help="Let other users in, as far as the guest's modes let their numbers.")
    ] = False,
    idle: Annotated[
        str, typer.Option(metavar="TIME", help="Unmount after nobody used it for so long (30m, 8h); 0s: never.")
    ] = "1h",
    lasting: Annotated[str, typer.Option("--for", metavar="TIME", help="Unmount after 30m, 8h, 2d in any case.")] = "",
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay until it is unmounted.")] = False,
) -> None:
    """Mount the files of a restore point at a directory, read-only, so that any backup or antivirus program can read them.
    Returns when it is mounted; 'lanfree umount', idle time, or --for ends it. Linux guests appear as they see themselves,
    Windows guests as C, D, … with other volumes below 'volumes'."""
    options = MountOptions(layout, allow_other, span(idle))
    keeper = _Keeper(point, directory, options, span(lasting) if lasting else None)
    if not foreground:
        _show(_in_background(keeper))
        return
    with suppress(Cancelled):  # how it is meant to end
        keeper.keep(_show)


@app.command()
def umount(
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="Where it is mounted.")],
    force: Annotated[bool, typer.Option("--force", help="Also while programs use it; they get errors.")] = False,
) -> None:
    """Unmount a restore point; returns when all of its processes have ended."""
    with CONTEXT.services() as services:
        record = mounts.unmount(services, directory, force=force)
    CONTEXT.output.result(record, f"{record.directory} is unmounted")


@app.command("mounts")
def list_mounts() -> None:
    """The restore points that are mounted on this machine."""
    with CONTEXT.services() as services:
        found = mounts.records(services)
    rows = [(r.directory, r.machine, r.point, r.since, r.process) for r in found]
    CONTEXT.output.result(found, table("DIRECTORY", "MACHINE", "RESTORE POINT", "SINCE", "PROCESS", rows=rows))


@dataclass(frozen=True, slots=True)
class _Keeper:
    """One mount and its end."""

    point: str
    directory: Path
    options: MountOptions
    lasting: timedelta | None

    def keep(self, ready: Callable[[MountRecord], None], log: bool = False) -> None:
        """Mount, tell ``ready``, stay until the end and say why it came. ``log``: words go to the log of mounts."""
        with CONTEXT.services() as services:
            if log:
                _redirect(os.open(mounts.log_of(services), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 1, 2)
            point = services.repository.point(self.point)
            audit(services, "mount", point, directory=str(self.directory))
            with mounts.mounted(services, point, self.directory, self.options) as (mount, record):
                ready(record)
                why = mounts.keep(mount, self.lasting, services.cancelled)
                for problem in mount.problems():
                    CONTEXT.output.warn(f"{self.directory}: {problem.message}")
                CONTEXT.output.say(f"{record.directory} is unmounted: {why}")


def _in_background(keeper: _Keeper) -> MountRecord:
    """The same in a process of its own that stays when this one returns. Raises what it met before it was ready."""
    answers, answer = os.pipe()
    child = os.fork()  # nothing has threads yet: connections are made by the child
    if child == 0:
        os.close(answers)
        _background(keeper, answer)
    os.close(answer)
    try:
        with os.fdopen(answers, "rb") as pipe:
            told = json.loads(pipe.read() or b"{}")
    except BaseException:  # nobody waits for it any more
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        raise
    if "record" not in told:
        os.waitpid(child, 0)
        raise _error(told.get("error", {}))
    return MountRecord(**told["record"])


def _background(keeper: _Keeper, answer: int) -> NoReturn:
    """In the child. One JSON document goes to ``answer``: the record, or why there is none."""
    code = 0

    def tell(document: object) -> None:
        with suppress(OSError), os.fdopen(os.dup(answer), "w") as pipe:  # told before, or nobody listens
            json.dump(document, pipe)
        _redirect(os.open(os.devnull, os.O_RDWR), answer)

    try:
        os.setsid()
        _redirect(os.open(os.devnull, os.O_RDWR), 0, 1, 2)
        CONTEXT.output = Output(as_json=False)
        keeper.keep(lambda record: tell({"record": plain(record)}), log=True)
    except Cancelled as error:
        tell({"error": {"code": error.code, "message": error.message, "hint": error.hint}})
    except LanfreeError as error:
        code = CONTEXT.output.error(error)
        tell({"error": {"code": error.code, "message": error.message, "hint": error.hint}})
    except BaseException as error:  # noqa: BLE001  the last door of this process: it must not return into its parent's code
        code = INTERNAL
        tell({"error": {"message": f"{type(error).__name__}: {error}"}})
    finally:
        sys.stdout.flush()
        os._exit(code)


def _redirect(source: int, *targets: int) -> None:
    for target in targets:
        os.dup2(source, target, inheritable=target <= 2)  # as standard streams are
    os.close(source)


def _error(facts: Mapping[str, str]) -> LanfreeError:
    """The child's error again, of the kind that it had there."""
    kind = kind_of(facts.get("code", "")) or MountFailed
    error = kind.__new__(kind)
    LanfreeError.__init__(
        error, facts.get("message", "the process in the background ended"), hint=facts.get("hint", "")
    )
    return error


def _show(record: MountRecord) -> None:
    CONTEXT.output.result(record)
    if not CONTEXT.output.as_json:
        CONTEXT.output.say(f"{record.machine}, restore point {record.point}, is mounted at {record.directory}")
        for device, path in record.shown.items():
            CONTEXT.output.say(f"  {device}  at {record.directory.rstrip('/')}{path}")
    for device, why in record.hidden.items():
        CONTEXT.output.warn(f"{device} is not shown: {why}")
    sys.stdout.flush()
