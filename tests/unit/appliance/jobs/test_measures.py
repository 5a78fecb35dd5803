"""What a run cost: medians over samples, and nothing made up where nobody measured."""

import json
from datetime import UTC, datetime

from appliance.jobs.measures import Sample, impact, of_backup, sample
from proxy.backup import BackupResult
from proxy.model import Consistency, ImageInfo, Level, MachineConfiguration, RestorePoint
from proxy.ports import HostLoad, Load, PlaceLoad
from proxy.stages import StageTimes


def seen(cpu: float | None, latency: float | None) -> Sample:
    return Sample(
        HostLoad(cpu=cpu, received=10.0, sent=5.0, network="guests"), {"gold": PlaceLoad(read_latency=latency)}
    )


def test_each_time_has_the_median_of_its_own_samples() -> None:
    found = impact(
        "h1",
        ["gold"],
        before=[seen(0.1, 0.002), seen(0.2, 0.003), seen(0.9, 0.5)],
        during=[seen(0.4, 0.010), seen(0.6, None)],
        after=[],
    )

    assert found["cpu"] == {"before": 0.2, "during": 0.5, "after": None}
    assert found["places"] == {
        "gold": {
            "read_latency": {"before": 0.003, "during": 0.01, "after": None},
            "write_latency": {"before": None, "during": None, "after": None},
        }
    }
    assert found["network"] == "guests"
    assert found["samples"] == {"before": 3, "during": 2, "after": 0}
    json.dumps(found)


def test_nothing_is_said_where_nobody_measured() -> None:
    assert impact("h1", ["gold"], [], [Sample()], [Sample()]) == {}


def test_a_sample_is_the_part_of_a_load_that_is_about_the_machine() -> None:
    load = Load(
        datetime.now(UTC),
        20.0,
        {"h1": HostLoad(cpu=0.5), "h2": HostLoad(cpu=0.9)},
        {"gold": PlaceLoad(reads=1), "silver": PlaceLoad(reads=2)},
    )

    assert sample(load, "h1", ["gold", "unknown"]) == Sample(HostLoad(cpu=0.5), {"gold": PlaceLoad(reads=1)})
    assert sample(load, "h3", []) == Sample()


def test_a_backup_tells_its_bytes_its_stages_and_how_long_the_guest_stood_still() -> None:
    image = ImageInfo("vda", 100, "index", "digest", "lan", "nbd", 80, 40, 20)
    point = RestorePoint(
        *("id", "m1", "web", "h1", "r1", datetime.now(UTC), Level.INCREMENTAL, Consistency.FILESYSTEM),
        images=(image, image),
        configuration=MachineConfiguration("libvirt-xml", "<domain/>"),
        frozen_seconds=0.12345,
    )
    stages = {"vda": StageTimes(2.0, 1.0, 3.0, 0.5), "vdb": StageTimes(1.0, 0.5, 1.0, 0.5)}

    found = of_backup(BackupResult(point, stages=stages, over_host=160))

    assert (found["bytes_read"], found["bytes_new"], found["bytes_stored"]) == (160, 80, 40)
    assert (found["over_host"], found["transports"], found["frozen_seconds"]) == (160, ["lan"], 0.123)
    assert found["stages"] == {
        "seconds": 3.0,
        "source": 1.5,
        "proxy": 4.0,
        "repository": 1.0,
        "paced": 0.0,
        "bottleneck": "proxy",
    }
    assert json.loads(json.dumps(found)) == found
