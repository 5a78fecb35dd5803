"""A simulated vCenter with machines whose disks lie on a real array's LUN::

    VcsimLab ──► vcsim-lab (Go)        govmomi's simulator over TLS, user and password
       │            │ guest's writes, snapshots' merges
       │            ▼
       └──► lun0.img: GPT + VMFS 6 ◄── tgtd ◄── iSCSI, read-only, CHAP: what the proxy reads

While a machine has a snapshot its guest writes into an overlay that only the simulator has, and the base on the LUN stands
still. What tests do beside the API (be the guest, see the truth, break things) are methods of ``VcsimLab``.
"""

import http.client
import json
import subprocess
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from proxy import command
from proxy.transport.san import SanFabric, SanTarget
from proxy.units import MiB
from tests.integration.transport.tgt_array import BACKUP, Array, until
from tests.system.vcsim.volume import LabVolume, kinds_of

SETUP = Path(__file__).parents[3] / "appliance" / "setup" / "vcsim.sh"
BUILD_TIMEOUT = 900
USER, PASSWORD = "administrator@vsphere.local", "Simulated-1"
VOLUME_UUID = "5831e290"
"""The second part of it differs from lab to lab, so that two labs' datastores are different ones."""


@dataclass(frozen=True)
class LabDisk:
    """``layout``: see ``kinds_of``. ``datastore``: of VMFS it lies on the LUN, else in a file of the simulator's.

    ``name``: its descriptor; web.vmdk, web_1.vmdk, … when empty. ``deltas``: how many snapshots' deltas can become readable
    on the LUN when a further snapshot freezes them. ``rdm``: "physicalMode" or "virtualMode".
    """

    key: str = "scsi0:0"
    size: int = 64 * MiB
    layout: str = "thin"
    datastore: str = "san1"
    name: str = ""
    mode: str = "persistent"
    sharing: str = ""
    rdm: str = ""
    encrypted: bool = False
    deltas: int = 2


@dataclass(frozen=True)
class LabMachine:
    """``host``: index; the cluster's hosts come first, then the standalone ones. ``tools``: toolsRunningStatus."""

    name: str
    disks: Sequence[LabDisk] = (LabDisk(),)
    folder: str = ""
    host: int = 0
    power: str = "poweredOn"
    guest: str = "debian12_64Guest"
    tools: str = "guestToolsRunning"
    annotation: str = ""
    firmware: str = "bios"
    template: bool = False
    tracking: bool = False
    datastore: str = "san1"
    attributes: Mapping[str, str] = field(default_factory=dict)
    tags: Sequence[str] = ()


TWO_MACHINES = (
    LabMachine("web", (LabDisk(), LabDisk("scsi0:1", 40 * MiB, "lazy")), folder="prod", tags=("backup:gold",)),
    LabMachine("db", (LabDisk(size=48 * MiB, layout="thick"),), guest="windows2019srv_64Guest"),
)


@dataclass(frozen=True)
class LabDatastore:
    """``extents``: of a VMFS one, how many 256 MiB on each of its LUNs; none: its disks are files of the simulator."""

    name: str
    kind: str = "VMFS"
    extents: tuple[int, ...] = (2,)


SAN = (LabDatastore("san1"),)


class VcsimLab:
    """Starts everything on entry and ends it on exit. ``port``: of the vCenter on 127.0.0.1, TLS; 0: a free one."""

    user, password, host = USER, PASSWORD, "127.0.0.1"

    def __init__(
        self,
        directory: Path,
        machines: Sequence[LabMachine] = TWO_MACHINES,
        datastores: Sequence[LabDatastore] = SAN,
        *,
        hosts: int = 2,
        standalone: int = 1,
        port: int = 0,
    ) -> None:
        self.directory = directory
        self.machines = machines
        self.datastores = datastores
        self.port, self.control, self.thumbprint = port, 0, ""
        self.array = Array()
        self.volumes: dict[str, LabVolume] = {}
        self.luns: dict[str, list[Path]] = {}
        self.names: dict[str, list[str]] = {}
        self.uuids: dict[str, str] = {}
        self._counts = {"Hosts": hosts, "Standalone": standalone}
        self._serial = uuid.uuid4().hex[:8]
        self._process: subprocess.Popen[bytes] | None = None

    # life

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Writes the volumes, starts the array and the vCenter, and waits until it answers."""
        self.directory.mkdir(parents=True, exist_ok=True)
        disks = self._lay()
        self.password_file.write_text(PASSWORD + "\n")
        self.password_file.chmod(0o600)
        try:
            self._serve()
            self._spawn(disks)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends both programs; calling it twice is allowed."""
        if self._process is not None:
            command.stop(self._process)
            self._process = None
        self.array.stop()

    def restart_array(self) -> None:
        """A new tgtd on the same port after ``array.kill()``: it serves the same LUNs under the same names."""
        self.array.stop()
        self._serve()

    @property
    def state(self) -> Path:
        """Of the Go program: its log, its certificate, and files of disks that no array serves."""
        return self.directory / "vcsim"

    @property
    def password_file(self) -> Path:
        return self.directory / "password"

    @property
    def ca_file(self) -> Path:
        return self.state / "ca.pem"

    @property
    def san_target(self) -> SanTarget:
        """The array as a site's configuration names it: read-only LUNs, CHAP."""
        return self.array.san_target(BACKUP, self.directory / "chap-secret")

    def _lay(self) -> dict[tuple[str, str], dict[str, Any]]:
        for index, datastore in enumerate(self.datastores):
            number = int(self._serial, 16) + index & 0xFFFFFFFF
            self.uuids[datastore.name] = f"{number:08x}-{VOLUME_UUID}-8a2e-bc2411b17e28"
            if datastore.kind == "VMFS" and datastore.extents:
                self.volumes[datastore.name] = LabVolume(datastore.extents, datastore.name)
        disks: dict[tuple[str, str], dict[str, Any]] = {}
        for machine in self.machines:
            for index, disk in enumerate(machine.disks):
                disks[machine.name, disk.key] = self._disk(machine, index, disk)
        lun = 0
        for name, made in self.volumes.items():
            made.builder.finish()
            self.names[name] = [f"t10.lanfree-{self._serial}-{lun + n}" for n in range(len(made.volume.luns))]
            lun += len(made.volume.luns)
            made.name_devices(self.names[name])
            made.identify(self.uuids[name])
            paths = [self.directory / f"{name}-lun{n}.img" for n in range(len(made.volume.luns))]
            self.luns[name] = [image.save(path) for image, path in zip(made.volume.luns, paths, strict=True)]
        return disks

    def _disk(self, machine: LabMachine, index: int, disk: LabDisk) -> dict[str, Any]:
        controller, _, unit = disk.key.partition(":")
        name = disk.name or (f"{machine.name}_{index}.vmdk" if index else f"{machine.name}.vmdk")
        file = f"{machine.name}/{name}"
        place = None
        volume = self.volumes.get(disk.datastore)
        if volume is not None and not disk.rdm:
            place = volume.lay(file, disk.size, kinds_of(disk.layout, disk.size), deltas=disk.deltas).place
        return {
            "Controller": controller,
            "Unit": int(unit),
            "Size": disk.size,
            "Datastore": disk.datastore,
            "File": file,
            "UUID": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self._serial}/{file}")),
            "Thin": disk.layout != "thick",
            "Mode": disk.mode,
            "Sharing": disk.sharing,
            "RDM": disk.rdm,
            "RDMLun": "naa.600144f0deadbeef0000000000000001" if disk.rdm else "",
            "Encrypted": disk.encrypted,
            "Place": place,
        }

    def _serve(self) -> None:
        self.array.start()
        self.array.target(1, BACKUP, chap=True)
        number = 0
        for paths in self.luns.values():
            for path in paths:
                self.array.lun(1, number + 1, path, f"lanfree-{self._serial}-{number}", readonly=True)
                number += 1

    def _spawn(self, disks: Mapping[tuple[str, str], Mapping[str, Any]]) -> None:
        command.run([SETUP], timeout=BUILD_TIMEOUT)
        program = command.run([SETUP, "--path"], timeout=30).text.strip()
        self.state.mkdir(exist_ok=True)
        config = self.state / "config.json"
        config.write_text(json.dumps(self._config(disks)))
        config.chmod(0o600)
        ready = self.state / "ready.json"
        ready.unlink(missing_ok=True)
        with (self.state / "log").open("wb") as log:
            process = self._process = command.spawn(
                [program, str(config)], log=log.fileno(), env={"TMPDIR": self._scratch()}
            )
        until(lambda: ready.exists() or process.poll() is not None, 60, "the simulated vCenter is ready")
        assert process.poll() is None, (self.state / "log").read_text()[-2000:]
        told = json.loads(ready.read_text())
        self.port, self.control, self.thumbprint = told["port"], told["control"], told["thumbprint"]

    def _scratch(self) -> str:
        path = self.state / "tmp"
        path.mkdir(exist_ok=True)
        return str(path)

    def _config(self, disks: Mapping[tuple[str, str], Mapping[str, Any]]) -> dict[str, Any]:
        return {
            "State": str(self.state),
            "User": USER,
            "Password": PASSWORD,
            "Port": self.port,
            **self._counts,
            "Datastores": [self._datastore(datastore) for datastore in self.datastores],
            "Machines": [
                {
                    "Name": m.name,
                    "Folder": m.folder,
                    "Host": m.host,
                    "Power": m.power,
                    "Guest": m.guest,
                    "Tools": m.tools,
                    "InstanceUUID": self.instance_uuid(m.name),
                    "UUID": str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{self._serial}/{m.name}")),
                    "Annotation": m.annotation,
                    "Firmware": m.firmware,
                    "Template": m.template,
                    "Tracking": m.tracking,
                    "Datastore": m.datastore,
                    "Attributes": dict(m.attributes),
                    "Tags": list(m.tags),
                    "Disks": [disks[m.name, disk.key] for disk in m.disks],
                }
                for m in self.machines
            ],
        }

    def _datastore(self, datastore: LabDatastore) -> dict[str, Any]:
        made = self.volumes.get(datastore.name)
        luns: list[dict[str, Any]] = []
        if made is not None:
            places = zip(self.luns[datastore.name], self.names[datastore.name], datastore.extents, strict=True)
            luns = [
                {
                    "File": str(path),
                    "Name": name,
                    "Partition": 1,
                    "DataAt": made.volume.start + made.data_at,
                    "Size": count * made.extent,
                }
                for path, name, count in places
            ]
        return {
            "Name": datastore.name,
            "Kind": datastore.kind,
            "UUID": self.uuids[datastore.name],
            "Label": datastore.name,
            "Version": "6.82",
            "Luns": luns,
            "Free": made.builder.free if made is not None else (0, 0),
        }

    # what tests know and do beside the API

    def instance_uuid(self, machine: str) -> str:
        """By which the driver knows a machine of the lab's configuration."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self._serial}/{machine}"))

    def fabric(self) -> SanFabric:
        """What a transport opens LUNs with."""
        return SanFabric([self.san_target])

    def ask(self, method: str, path: str, body: bytes = b"", **query: object) -> bytes:
        """A call of the control endpoint. Raises ``AssertionError`` with what it said unless it did it."""
        connection = http.client.HTTPConnection(self.host, self.control, timeout=60)
        try:
            connection.request(method, f"{path}?{urlencode(query)}" if query else path, body)
            answer = connection.getresponse()
            said = answer.read()
        finally:
            connection.close()
        assert answer.status == 200, f"{method} {path}: {said.decode(errors='replace')}"
        return said

    def machine(self, name: str) -> dict[str, Any]:
        """``Ref``, ``Disks`` (Name, Key, Size, Files, Tracking, ChangeID), ``Snapshots``, ``Disabled`` as they are now."""
        told: dict[str, dict[str, Any]] = json.loads(self.ask("GET", "/machines"))
        return told[name]

    def guest_writes(self, machine: str, disk: str, offset: int, data: bytes) -> None:
        """The guest writes; it goes into the active delta while a snapshot exists, else to the LUN."""
        self.ask("POST", "/write", data, machine=machine, disk=disk, offset=offset)

    def truth(self, machine: str, disk: str, offset: int, length: int, snapshot: str = "") -> bytes:
        """Bytes of the disk as the guest sees it, or of what a snapshot (managed object id) froze."""
        return self.ask("GET", "/read", machine=machine, disk=disk, offset=offset, length=length, snapshot=snapshot)

    def digest(self, machine: str, disk: str, snapshot: str = "") -> str:
        """SHA-256 of the whole disk, as ``truth``."""
        told = json.loads(self.ask("GET", "/digest", machine=machine, disk=disk, snapshot=snapshot))
        return str(told["sha256"])

    def counters(self, *, reset: bool = False) -> dict[str, Any]:
        """``Read``: bytes of disks that hosts handed out; ``Written``: that they took in; ``Calls``: of the API, by method."""
        told: dict[str, Any] = json.loads(self.ask("DELETE" if reset else "GET", "/counters"))
        return told

    def fault(self, name: str, *, machine: str = "", times: int = -1, value: object = "") -> None:
        """Break something (names: ``knownFaults`` in control.go), for one machine or any, so often or until ``mend``."""
        fault = {"Name": name, "Machine": machine, "Times": times, "Value": str(value)}
        self.ask("POST", "/faults", json.dumps(fault).encode())

    def mend(self, name: str = "") -> None:
        """Take back faults of that name, or all."""
        self.ask("DELETE", "/faults", name=name)

    def expire_sessions(self) -> None:
        """Every session that a client has used is over: calls fail until it logs in again."""
        self.ask("POST", "/expire-sessions")

    def restart_vcenter(self, seconds: float = 0.5) -> None:
        """Connections break, the port is closed so long, sessions are over; machines and snapshots are as they were."""
        self.ask("POST", "/restart", seconds=seconds)

    def new_certificate(self) -> str:
        """Another certificate of another authority from the next connection on; returns its thumbprint."""
        self.thumbprint = json.loads(self.ask("POST", "/certificate"))["thumbprint"]
        return self.thumbprint

    def new_epoch(self, machine: str, disk: str) -> None:
        """Change ids of the disk that were given out mean nothing any more."""
        self.ask("POST", "/epoch", machine=machine, disk=disk)

    def lose_leases(self, machine: str) -> None:
        """The machine's running leases go to state error, their transfers are cut, an import's machine goes."""
        self.ask("POST", "/lose-leases", machine=machine)


def temporary_lab(**options: Any) -> VcsimLab:
    """For trying things by hand, in a new temporary directory."""
    return VcsimLab(Path(tempfile.mkdtemp(prefix="vcsim-lab-")), **options)
