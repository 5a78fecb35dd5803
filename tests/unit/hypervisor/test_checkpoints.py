from xml.etree import ElementTree

import pytest

from proxy.hypervisor.kvm.checkpoints import TrackingPlan, checkpoint_xml, trackable
from proxy.hypervisor.kvm.inventory import ChainLink, DiskXml
from proxy.model import FileAddress, Format, Layer, Tracking


def chain(*formats):
    places = [FileAddress(f"/{i}") for i, _ in enumerate(formats)]
    return tuple(ChainLink(p, Layer(p, form), p.path, "file") for p, form in zip(places, formats, strict=True))


@pytest.mark.parametrize(
    ("formats", "can"),
    [((Format.QCOW2,), True), ((Format.RAW,), False), ((Format.QCOW2, Format.QCOW2), False), ((), False)],
)
def test_bitmaps_are_kept_for_a_single_qcow2_image_only(formats, can):
    assert trackable(DiskXml("vda", chain(*formats))) is can


def test_a_new_checkpoint_names_every_disk_and_a_known_one_only_its_own():
    new = ElementTree.fromstring(checkpoint_xml("lanfree-1", ["vda"], ["vda", "vdb"]))
    assert [(d.get("name"), d.get("checkpoint")) for d in new.iter("disk")] == [("vda", "bitmap"), ("vdb", "no")]
    known = ElementTree.fromstring(checkpoint_xml("lanfree-1", ["vda"], ["vda", "vdb"], known=True))
    assert [(d.get("name"), d.get("bitmap")) for d in known.iter("disk")] == [("vda", "lanfree-1")]
    assert known.find("creationTime") is not None


@pytest.mark.parametrize(
    ("sound", "first", "started", "tracking", "mark"),
    [
        ({"vda": "lanfree-0"}, set(), True, Tracking.IMAGE, "lanfree-1"),
        ({}, {"vda"}, True, Tracking.IMAGE, "lanfree-1"),
        ({}, set(), True, Tracking.NONE, "lanfree-1"),  # the old mark is lost: read all, but set a new one
        ({"vda": "lanfree-0"}, set(), False, Tracking.NONE, None),
    ],
)
def test_a_mark_is_used_only_if_it_is_sound_and_the_new_one_was_set(sound, first, started, tracking, mark):
    plan = TrackingPlan("1", ["vda"], sound, first, started)
    assert (plan.tracking("vda"), plan.change_id("vda")) == (tracking, mark)
    assert (plan.tracking("vdb"), plan.change_id("vdb")) == (Tracking.NONE, None)
