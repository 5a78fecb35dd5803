"""How a frozen disk's bytes reach the proxy, and how a restore's bytes reach a device.

san.py      mode ``san``: over the array's fabric, with an iSCSI initiator of our own in user space (iscsi/); SAN.md
raw.py      mode ``raw``: files in shared directories, block devices of the kernel (multipath, FC)
lan.py      mode ``lan``: from the hypervisor over NBD (nbd.py)
layers.py   what all of them share: raw and qcow2 images (qcow2*.py, runs.py) in containers that a mode opens
target.py   the way back: LUNs (lun_target.py) and files (file_target.py) that a restore named (signatures.py)
memory*.py  fakes for tests, held to the same contracts; guard.py: range checks
"""
