"""What the form of a whole-machine restore means, and what has to be typed before something may go."""

import re
from html import unescape
from typing import Literal

import pytest
from pydantic import ValidationError

from api.schemas.common import MachineRef
from api.schemas.restores import (
    DatastorePlace,
    LunPlace,
    Occupant,
    PathPlace,
    PlannedDisk,
    PlannedMachine,
    RestorePreview,
    RestoreTargets,
    TargetDirectory,
    TargetHost,
    TargetLun,
)
from api.ui.pages.restore_disks import ELSEWHERE, LEFT_OUT
from api.ui.pages.restore_machine import typed_name
from api.ui.pages.restore_plan import form, left_out, plan_of, wrong_with
from api.ui.parts.part import Act
from proxy.model import PowerState
from tests.unit.api.ui.shown_points import MOMENT, image, point

POINT = point(image("vda"), image("vdb"))


def said(**values: str) -> Act:
    return Act("preview", form={name.replace("_", "-"): (value,) for name, value in values.items()})


def test_each_disk_goes_where_the_form_says_and_what_is_left_out_is_named() -> None:
    plan = plan_of(POINT, said(place_0='["lun", "iqn.x:a", "3"]', place_1=LEFT_OUT, name="again"))

    assert plan.disks == {"vda": LunPlace(target="iqn.x:a", lun=3)}
    assert plan.name == "again"
    assert left_out(POINT, plan) == "1 disk left out: vdb"


def test_a_file_and_a_datastore_are_places_too() -> None:
    plan = plan_of(POINT, said(place_0=ELSEWHERE, file_0="/disks/a.raw", place_1='["datastore", "ds1"]'))

    assert plan.disks == {"vda": PathPlace(path="/disks/a.raw"), "vdb": DatastorePlace(datastore="ds1")}
    assert left_out(POINT, plan) == ""


def test_in_place_and_disks_only_take_no_name() -> None:
    itself = plan_of(POINT, Act("preview", form={"as": ("itself",), "name": ("again",), "overwrite": ("on",)}))
    disks = plan_of(POINT, Act("preview", form={"as": ("disks",), "name": ("again",)}))

    assert (itself.name, itself.disks_only, itself.overwrite) == (None, False, True)
    assert (disks.name, disks.disks_only, disks.overwrite) == (None, True, False)


@pytest.mark.parametrize("file", ["relative", "", "/a\nb"])
def test_a_path_that_is_none_is_no_plan_and_the_disk_is_named(file: str) -> None:
    with pytest.raises(ValidationError) as refused:
        plan_of(POINT, said(place_0=ELSEWHERE, file_0=file))
    (words,) = wrong_with(refused.value)
    assert words.startswith("vda: say the whole path of its file")


def test_a_name_that_is_too_long_is_no_plan() -> None:
    with pytest.raises(ValidationError) as refused:
        plan_of(POINT, said(name="x" * 201))
    assert wrong_with(refused.value) == ["Its new name: at most 200 characters, in one line."]


def test_the_form_escapes_names_and_offers_no_lun_that_is_too_small_or_host_that_is_silent() -> None:
    lives = Occupant(
        machine=MachineRef(id="x", name="<b>evil"), disk="vda", state=PowerState.RUNNING, host="h", same=False
    )
    targets = RestoreTargets(
        hosts=(TargetHost(name="h2", hypervisor="h2", kind="kvm", silent="no answer"),),
        luns=(TargetLun(target="iqn.x:a", lun=1, size=1, occupants=(lives,)),),
        directories=(TargetDirectory(path="/disks", free=1 << 40),),
    )
    drawn = form(POINT, targets)

    assert "<b>evil" not in drawn
    assert "&lt;b&gt;evil" in drawn
    assert drawn.count("disabled") == 3  # the host, and the LUN for each disk
    assert 'value="/disks/db-07-vda.raw"' in drawn


def test_a_disks_own_place_is_marked_for_when_the_machine_itself_is_restored() -> None:
    own = Occupant(
        machine=MachineRef(id="id-db", name="db-07"), disk="vdb", state=PowerState.OFF, host="h1", same=False
    )
    targets = RestoreTargets(
        luns=(TargetLun(target="iqn.x:a", lun=1), TargetLun(target="iqn.x:a", lun=2, occupants=(own,))),
        directories=(TargetDirectory(path="/disks", free=1 << 40),),
    )
    lies = POINT.model_copy(update={"images": [image("vda", "/disks/of/db.raw"), image("vdb", "/dev/sdx")]})
    first, second = str(form(lies, targets)).split('name="place-1"')

    assert 'data-own="/disks/of/db.raw"' in first
    assert 'data-own="1"' not in first
    assert re.findall(r"<option[^>]*data-own[^>]*>[^<]*", second) == [
        '<option value="[&quot;lun&quot;, &quot;iqn.x:a&quot;, &quot;2&quot;]" data-own="1">'
        "LUN 2 of iqn.x:a: holds db-07 vdb (its own place)"
    ]


def test_that_disks_which_cannot_be_told_apart_lie_elsewhere_is_asked_for_luns_alone() -> None:
    lun = RestoreTargets(luns=(TargetLun(target="iqn.x:a", lun=1),))
    taken = RestoreTargets(luns=(TargetLun(target="iqn.x:a", lun=1, writable=False),))
    files = RestoreTargets(directories=(TargetDirectory(path="/disks"),))

    assert ['name="unidentified"' in form(POINT, one) for one in (lun, taken, files)] == [True, False, False]
    assert [plan_of(POINT, act).unidentified for act in (said(), said(unidentified="on"))] == [False, True]


def test_every_shared_directory_is_a_place_and_the_file_is_named_within_it() -> None:
    targets = RestoreTargets(
        directories=(TargetDirectory(path="/one"), TargetDirectory(path="/two/", error="not there"))
    )
    lies = POINT.model_copy(update={"images": [image("vda", "/two/of/db.raw")]})
    drawn = str(form(lies, targets))
    options = re.findall(r'<option value="([^"]*)" data-file="1"( data-own="1")?>([^,]*)', drawn)

    assert [(unescape(value), own, words) for value, own, words in options] == [
        ('["directory", "/one"]', "", "A file in /one"),
        ('["directory", "/two/"]', ' data-own="1"', "A file in /two/"),
    ]
    assert 'value="db-07-vda.raw"' in drawn
    assert 'data-own="/two/of/db.raw"' in drawn


@pytest.mark.parametrize(
    ("file", "path"), [("a.raw", "/two/a.raw"), ("of/a.raw", "/two/of/a.raw"), ("/elsewhere/a.raw", "/elsewhere/a.raw")]
)
def test_a_file_in_a_chosen_directory_is_named_within_it_or_by_its_whole_path(file: str, path: str) -> None:
    plan = plan_of(POINT, said(place_0='["directory", "/two/"]', file_0=file))
    assert plan.disks == {"vda": PathPlace(path=path)}


def test_a_chosen_directory_without_a_file_is_no_plan() -> None:
    with pytest.raises(ValidationError) as refused:
        plan_of(POINT, said(place_0='["directory", "/two"]', file_0=" "))
    assert wrong_with(refused.value)[0].startswith("vda: ")


@pytest.mark.parametrize(
    ("effect", "becomes", "typed"),
    [
        ("create", "new", ""),
        ("create", "recreated", ""),
        ("overwrite", "new", "db-07"),
        ("unknown", "disks-only", "db-07"),
        ("create", "replaced", "db-07"),
    ],
)
def test_what_may_be_lost_asks_for_the_name(
    effect: Literal["create", "overwrite", "unknown"],
    becomes: Literal["new", "replaced", "recreated", "disks-only"],
    typed: str,
) -> None:
    disk = PlannedDisk(key="vda", size=1, place="/x", kind="path", effect=effect)
    preview = RestorePreview(
        point="p1",
        machine=MachineRef(id="id-db", name="db-07"),
        taken_at=MOMENT,
        consistency="crash",
        result=PlannedMachine(name="again", host="h1", effect=becomes),
        disks=[disk],
        total_bytes=1,
    )
    assert typed_name(preview) == typed
