"""New places for references whose pack is gone or doomed: what an incremental takes over from its parent must last."""

from collections.abc import Callable, Collection

import numpy as np

from proxy.repository.format import ID_BYTES, SEGMENT_BYTES, SEGMENT_CHUNKS, SEGMENT_IDS
from proxy.repository.lookup import ChunkLookup
from proxy.repository.resolve import Found, Resolver


def relocate(bad: Collection[int], lookup: ChunkLookup, slots: memoryview, number: Callable[[bytes], int]) -> bool:
    """Give every reference into a bad pack a place in a good one. ``False`` if a chunk is in no good pack: the slots are of no
    use then.

    ``bad``: numbers of packs as they stand in the slots. ``slots``: an index's slots, writable, changed. ``number``: gives a
    pack its number there.
    """
    packs = lookup.packs()
    resolver = Resolver(lookup, packs, partial=True)
    known = np.zeros(len(packs), dtype=np.uint32)
    wrong = np.array(sorted(bad), dtype=np.uint32)
    for start in range(0, len(slots), SEGMENT_BYTES):
        places = np.frombuffer(slots, "<u4", SEGMENT_CHUNKS * 3, start + SEGMENT_IDS).reshape(SEGMENT_CHUNKS, 3)
        rows = np.nonzero(np.isin(places[:, 0], wrong))[0]
        if not len(rows):
            continue
        ids = np.frombuffer(slots, np.uint8, SEGMENT_IDS, start).reshape(SEGMENT_CHUNKS, ID_BYTES)[rows]
        found = resolver.find(ids)
        for missed in np.nonzero(found.packs < 0)[0].tolist():
            # Mostly it is nowhere; but what a full cache file system kept out of the runs is found one by one.
            place = lookup.find(ids[missed].tobytes())
            if place is None:
                return False
            places[rows[missed]] = (number(place.pack), place.offset, place.word)
        there = found.packs >= 0
        rows = rows[there]
        found = Found(found.packs[there], found.offsets[there], found.words[there])
        for pack in np.unique(found.packs[known[found.packs] == 0]).tolist():
            known[pack] = number(packs.name(pack))
        places[rows, 0] = known[found.packs]
        places[rows, 1] = found.offsets
        places[rows, 2] = found.words
    return True
