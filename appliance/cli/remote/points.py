"""``lanfree --server URL points``, ``verify``, ``restore`` and ``point``."""

from contextlib import suppress
from typing import Annotated, Any

import typer

from api.client import Client
from api.schemas.access import Approval
from api.schemas.points import RestorePoint, RestorePointDetail
from api.schemas.restores import RestorePreview
from api.schemas.tasks import Task
from appliance.cli import shared_options as options
from appliance.cli.app import CONTEXT, app
from appliance.cli.output import ATTENTION, Fitting, local, table, when, zoned
from appliance.cli.remote.asking import at
from appliance.cli.remote.following import Wait, followed
from appliance.cli.remote.machines import machine_of
from appliance.cli.restore_places import place_in, renamed_in
from proxy.errors import RestorePointNotFound, RestoreRefused, ServerRefused
from proxy.ports import DiskPlace
from proxy.units import format_size

point = typer.Typer(no_args_is_help=True, help="One restore point: keep it, or delete it.")
app.add_typer(point, name="point")


@app.command("points")
def list_points(
    name: Annotated[str | None, typer.Argument(metavar="[MACHINE]", help="Name or identity.")] = None,
    why: Annotated[bool, typer.Option("--why", help="Show the reasons of every decision.")] = False,
) -> None:
    """The restore points, oldest first. Every one of them restores like a full."""
    with CONTEXT.asking() as server:
        machine = machine_of(server, name).id if name else None
        found = list(server.items(RestorePoint, "/restore-points", machine=machine, sort="created_at", limit=1000))
        details = [server.get(RestorePointDetail, f"/restore-points/{p.id}") for p in found] if why else []
    if why:
        CONTEXT.output.result([one.model_dump(mode="json") for one in details], *(_summary(one) for one in details))
        return
    rows = [
        (
            p.id,
            p.machine_name,
            local(p.created_at),
            p.level.value,
            p.consistency.value,
            ",".join(p.transports),
            format_size(p.size),
            format_size(p.bytes_read),
            format_size(p.bytes_stored),
            p.health.value,
        )
        for p in found
    ]
    columns = (
        "RESTORE POINT", "MACHINE", zoned("TAKEN"), "LEVEL", "CONSISTENCY", "OVER", "DISKS", "READ", "STORED", "VERIFIED"
    )  # fmt: skip
    drop = ("OVER", "DISKS", "LEVEL", "READ", "STORED", "CONSISTENCY", "VERIFIED")
    CONTEXT.output.result([p.model_dump(mode="json") for p in found], Fitting(*columns, rows=rows, drop=drop))


@app.command()
def verify(
    name: Annotated[str | None, typer.Argument(metavar="[POINT]", help="Restore point; all without.")] = None,
    share: options.Share = 1.0,
    deep: options.Deep = True,
    wait: Wait = True,
) -> None:
    """Read every chunk back and check it. Names machine, restore point, disk and offset of everything that is damaged."""
    with CONTEXT.asking() as server:
        points = [point_of(server, name).id] if name else []
        asked = server.post(Task, "/verifications", {"points": points, "share": share, "deep": deep})
        followed(server, asked, wait=wait)


@app.command()
def restore(
    point: options.Point,
    disk: options.Places,
    host: options.OnHost = "",
    new_name: options.NewName = "",
    overwrite: options.OverPlaces = False,
    connected: options.Connected = False,
    disks_only: options.DisksOnly = False,
    without_host: options.WithoutHosts = None,
    unidentified: options.Unidentified = False,
    differential: options.Differential = False,
    compare: options.Compare = True,
    folder: options.Folder = "",
    pool: options.Pool = "",
    network: options.Networks = None,
    attach: options.Attach = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would happen.")] = False,
    wait: Wait = True,
) -> None:
    """Write a machine's disks, read them back, compare, define the machine, powered off. What will happen is shown first."""
    with CONTEXT.asking() as server:
        plan: dict[str, Any] = {
            "point": point_of(server, point).id,
            "disks": {key: _as_asked(place) for key, place in map(place_in, disk)},
            "name": new_name or None,
            "host": host,
            "overwrite": overwrite,
            "connected": connected,
            "disks_only": disks_only,
            "without_hosts": without_host or [],
            "unidentified": unidentified,
            "differential": differential,
            "compare": compare,
            "folder": folder,
            "pool": pool,
            "networks": dict(map(renamed_in, network or ())),
            "attach": machine_of(server, attach).id if attach else None,
        }
        shown = server.post(RestorePreview, "/restores/preview", plan)
        _refused(shown)
        if dry_run:
            CONTEXT.output.result(shown.model_dump(mode="json"), *_told(shown))
            return
        for line in _told(shown):
            CONTEXT.output.note(str(line))
        task = server.post(Task, "/restores", {**plan, "confirm": shown.confirm}, key=server.new_key())
        followed(server, task, wait=wait)


@point.command("hold")
def hold(name: options.Point, why: Annotated[str, typer.Option(help="Recorded, and shown to whoever asks.")]) -> None:
    """Keep a restore point whatever rules say, until it is released."""
    with CONTEXT.asking() as server:
        found = point_of(server, name)
        server.call("POST", f"/restore-points/{found.id}/hold", {"why": why})
    CONTEXT.output.result({"point": found.id, "held": True}, f"{found.id} is held: {why}")


@point.command("release")
def release(name: options.Point) -> None:
    """Rules count for it again."""
    with CONTEXT.asking() as server:
        found = point_of(server, name)
        server.call("POST", f"/restore-points/{found.id}/release")
    CONTEXT.output.result({"point": found.id, "held": False}, f"{found.id} is not held any more")


@point.command("delete")
def delete(
    name: options.Point, why: Annotated[str, typer.Option(help="Recorded with it.")] = "asked for on the command line"
) -> None:
    """Delete a restore point. The last good one of a machine stays."""
    with CONTEXT.asking() as server:
        found = point_of(server, name)
        answer = server.call("DELETE", f"/restore-points/{found.id}", why=why)
    if answer.status_code == 202:  # Accepted: not done yet
        asked = Approval.model_validate_json(answer.content)
        CONTEXT.output.result(asked.model_dump(mode="json"), f"nothing is deleted yet: {asked.summary}")
        CONTEXT.output.warn(f"somebody else has to approve it: request {asked.id}")
        raise typer.Exit(ATTENTION)
    CONTEXT.output.result({"point": found.id, "deleted": True}, f"{found.id} is deleted")


def point_of(server: Client, name: str) -> RestorePoint:
    """By its id, or the beginning of it. Raises ``RestorePointNotFound``."""
    if not name:
        raise RestorePointNotFound("''")
    with suppress(ServerRefused):  # then the list has it, or says why nobody is told
        return server.get(RestorePointDetail, at("restore-points", name))
    fitting = [p for p in server.items(RestorePoint, "/restore-points", limit=1000) if p.id.startswith(name)]
    exact = [p for p in fitting if p.id == name] or fitting
    if len(exact) != 1:
        raise RestorePointNotFound(f"{name} ({len(fitting)} begin so)" if fitting else name)
    return exact[0]


def _summary(one: RestorePointDetail) -> str:
    head = f"{one.machine_name}  {one.id}  {one.level.value}, {one.consistency.value} consistent, "
    head += f"guest frozen {one.frozen_seconds:.2f} s"
    reasons = [*one.reasons, *(reason for image in one.images for reason in image.reasons)]
    return "\n".join([head, *(f"  {r.code.value}{': ' + r.detail if r.detail else ''}" for r in reasons)])


def _refused(shown: RestorePreview) -> None:
    if shown.refusals:
        first = shown.refusals[0]
        error = RestoreRefused(shown.machine.name, first.message, hint=first.hint)
        for other in shown.refusals[1:]:
            error.add_note(other.message)
        raise error


def _told(shown: RestorePreview) -> list[object]:
    machine = shown.result
    rows = [(d.key, d.place, format_size(d.size), d.effect, d.content or "-") for d in shown.disks]
    said: list[object] = [
        f"{shown.machine.name} of {when(shown.taken_at)}, {shown.consistency} consistent: "
        f"{machine.effect} as {machine.name} on {machine.host}, powered off",
        table("DISK", "TO", "SIZE", "EFFECT", "THERE NOW", rows=rows),
    ]
    return [*said, *(f"not restored: {line}" for line in shown.left_out), *shown.warnings]


def _as_asked(place: DiskPlace) -> dict[str, Any]:
    if place.datastore:
        return {"kind": "datastore", "datastore": place.datastore, "path": place.path}
    if place.path:
        return {"kind": "path", "path": place.path}
    return {"kind": "lun", "target": place.target, "lun": place.lun}
