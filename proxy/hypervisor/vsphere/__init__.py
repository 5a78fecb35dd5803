"""vSphere through vCenter: inventory, quiesced snapshots, change tracking, exports and imports over the LAN.

::

    driver.py         VsphereSite, the Hypervisor port. Read first.
    settings.py       what is configured of a vCenter
    privileges.py     the role that it needs, privilege by privilege, and whether it has it

  the connection
    connection.py     the only importer of pyVmomi: session, certificate, what is asked again and what never is
    tls.py            HTTPS to a server that is known beforehand (standard library only)
    faults.py         vSphere's faults in our words (pure)
    collector.py      properties of many objects in few round trips
    tasks.py          waiting for tasks: limits, cancelling, a restart of vCenter
    internal.py       the two calls that hold off Storage vMotion, which pyVmomi lacks
    files.py          small files of a machine in its datastore
    tags.py           tags, over vCenter's REST interface

  what there is
    inventory.py      machines, templates, datastores, hosts; places.py: folders, pools and their paths
    devices.py        virtual devices -> disks, their places, what no snapshot can hold (pure)
    selection.py      which machines a job means, found out when it runs (pure)
    targets.py        where a restored machine can go: hosts, datastores, networks
    meters.py         vCenter's counters of hosts and datastores

  snapshots
    snapshots.py, making.py, quiesce.py         one is made; room.py: where there is space for it; relocation.py: no Storage
                                                vMotion meanwhile
    tracking.py, changes.py                     change tracking: on, still valid, what it says
    release.py, sweep.py, looking.py            one is ended; those of dead runs are found and ended
    ownership.py, records.py                    which are ours; what a run needs to know after the proxy was killed

  configuration and restore
    configuration.py  what a restore point keeps of a machine; vim_json.py: API objects as JSON and back
    definition.py     a saved configuration -> a new machine; placement.py: where it goes
    leases.py, exports.py, imports.py, nfc_http.py    NFC: disks out and in over the LAN
    attach.py         one restored disk into a machine that exists
    guest_files.py    files into a running guest through VMware Tools; guest_transfer.py: one file's content on its way

Whatever is called on an object of ``vim``, wherever it came from, goes through ``connection``: errors are ours, sessions are
renewed, reading calls outlive a restart of vCenter. A call that changes something and whose answer never came raises
``Refused`` with ``OUTCOME_UNKNOWN``; the caller looks what became of it.
"""

from proxy.hypervisor.vsphere.driver import VsphereSite
from proxy.hypervisor.vsphere.settings import VsphereSettings

__all__ = ["VsphereSettings", "VsphereSite"]
