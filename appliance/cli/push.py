"""``lanfree files push``: files of a restore point back into a running guest, through its hypervisor's agent."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from appliance import operations
from appliance.auditing import audit
from appliance.cli.app import CONTEXT
from appliance.cli.files import files, restoring
from appliance.cli.output import ATTENTION, table
from appliance.cli.shared_options import FullPaths, GuestPaths, IntoGuest, Overwrite, Point
from appliance.file_restore import LIFETIME
from appliance.guest import GuestLogin, guest_files
from mounter.ports import shown
from mounter.restore.guest import GuestTarget
from mounter.restore.tree import Options, RestoreReport, restore_files
from mounter.targets import Action
from proxy.model import MachineId
from proxy.units import format_size

# A person reads no more; the JSON document has all.
SHOWN = 20


@dataclass(frozen=True, slots=True)
class PushReport:
    """``lost``: what could not be set or made -> of how many entries. ``seconds``: from the first question to the last."""

    machine: MachineId
    directory: str
    report: RestoreReport
    lost: Mapping[str, int]
    seconds: float

    @property
    def sent_per_second(self) -> float:
        """Bytes of content."""
        return self.report.written / self.seconds if self.seconds else 0.0


@files.command("push")
def push(
    point: Point,
    paths: GuestPaths,
    to: IntoGuest,
    overwrite: Overwrite = False,
    full_paths: FullPaths = False,
    guest_user: Annotated[str | None, typer.Option(help="vSphere: a user of the guest.")] = None,
    guest_password_file: Annotated[
        Path | None, typer.Option(help="vSphere: file (mode 0600) whose first line is that user's password.")
    ] = None,
) -> None:
    """Restore files into a running machine, through its guest agent: no network path to the guest is needed.

    Nothing in the guest is replaced without --overwrite. What is there already, with the same size and time, is not sent
    again: a push that broke off is simply started again. An agent is slow (some MB/s): for much data restore a disk.
    """
    name, directory = _destination(to)
    login = _login(guest_user, guest_password_file)
    wanted = [path.encode(errors="surrogateescape") for path in paths]
    with CONTEXT.services() as services:
        found = services.repository.point(point)
        machine = operations.machine_named(services, name)
        audit(services, "push", found, paths=[shown(path) for path in wanted], to=shown(directory), into=machine.id)
        with (
            GuestTarget(guest_files(services, machine, directory, login), overwrite=overwrite) as target,
            services.mount(found, lifetime=LIFETIME) as session,
            restoring() as progress,
        ):
            started = time.monotonic()
            report = restore_files(
                session,
                wanted,
                target,
                options=Options(full_paths=full_paths),
                progress=progress,
                cancelled=services.cancelled.is_set,
            )
            seconds = time.monotonic() - started
            lost = Counter({loss.what: loss.count for loss in report.losses}) + target.late_losses
    _tell(PushReport(machine.id, shown(directory), report, dict(lost), seconds), machine.name)


def _destination(to: str) -> tuple[str, bytes]:
    machine, colon, directory = to.partition(":")
    if not machine or not colon or not directory:
        raise typer.BadParameter("write it as MACHINE:DIRECTORY, for example web1:/srv/restored", param_hint="--to")
    return machine, directory.encode(errors="surrogateescape")


def _login(user: str | None, password_file: Path | None) -> GuestLogin | None:
    if user is None and password_file is None:
        return None
    if user is None or password_file is None:
        raise typer.BadParameter("give --guest-user and --guest-password-file together")
    return GuestLogin(user, password_file)


def _tell(done: PushReport, name: str) -> None:
    report = done.report
    sent = sum(count for action, count in report.entries.items() if action in (Action.WRITTEN, Action.PENDING))
    rows = [
        ("taken by the guest", str(max(0, sent - report.failed)), format_size(report.written)),
        ("there already", str(report.entries.get(Action.UNCHANGED, 0)), ""),
        ("left out", str(report.entries.get(Action.LEFT_OUT, 0)), ""),
        ("failed", str(report.failed), ""),
    ]
    speed = f"{name}:{done.directory}, {done.seconds:.1f} s, {format_size(int(done.sent_per_second))}/s"
    CONTEXT.output.result(done, table("ENTRIES", "NUMBER", "SENT", rows=rows), speed)
    for problem in report.problems[:SHOWN]:
        CONTEXT.output.warn(str(problem))
    if report.failed > SHOWN:
        CONTEXT.output.warn(f"{report.failed - SHOWN} more are not shown; --json tells them")
    for what, count in sorted(done.lost.items()):
        CONTEXT.output.warn(f"not kept in the guest: {what} ({count} entries)")
    if report.failed or not report.complete or done.lost:
        raise typer.Exit(ATTENTION)
