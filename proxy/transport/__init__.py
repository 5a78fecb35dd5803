"""How a frozen disk's bytes reach the proxy: one module a mode (``san``, ``raw``, ``lan``), one shared for image layers.

san.py     over the array's fabric, with the proxy's own user-space iSCSI initiator (iscsi/); see SAN.md
raw.py     files in directories that hosts and proxy share, and local block devices (kernel multipath, FC)
target.py  the way back: writing a restore to a LUN, a device or a file that the restore named
"""
