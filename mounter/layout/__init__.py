"""Where the metadata of a volume lies, so that an index run reads again only what was written since the last one.

::

    places ── Region of each volume in its disk          changes ── what differs between two images, per volume
       └─> ext.ExtLayout, ntfs.NtfsLayout ──> model.Tree (names, records, and the extents that each was read from)

Our own parsers, in Python alone: hostile bytes end in ``LayoutDoubt``, and then the volume is walked as a whole. What is
remembered of a volume is a function of the bytes that were read for it; where none of those bytes changed, neither did it.
"""
