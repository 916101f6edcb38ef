"""The fleet in a few numbers; what nobody reports is absent, never 0."""

from typing import Any

MEASURED = (
    "memoryTotalMiB",
    "memoryUsedMiB",
    "memoryAvailableMiB",
    "meanUtilizationPercent",
    "meanTemperatureCelsius",
    "powerMilliwatts",
    "oldestSampleSeconds",
)


def test_sums_and_means_node_by_node_and_in_all(files: Any, gpufleet: Any) -> None:
    busy = files.node(
        "node-2", files.device("node-2", 0, memoryUsedMiB=30000, utilizationPercent=60, temperatureCelsius=70)
    )
    fleet = files.write(files.idle("node-1"), busy)
    told = gpufleet("summary", "--fleet", fleet, "-o", "json").json
    assert [node["name"] for node in told["nodes"]] == ["node-1", "node-2"]
    assert (told["devices"], told["healthy"], told["idle"], told["held"]) == (3, 3, 3, 0)
    assert (told["memoryTotalMiB"], told["memoryUsedMiB"], told["memoryAvailableMiB"]) == (240000, 30000, 210000)
    assert told["meanUtilizationPercent"] == 20
    assert told["nodes"][1]["meanUtilizationPercent"] == 60
    assert told["powerMilliwatts"] == 210000
    lines = [line.split() for line in gpufleet("summary", "--fleet", fleet).out.splitlines()]
    assert [line[0] for line in lines] == ["NODE", "node-1", "node-2", "all"]
    assert lines[3][1:9] == ["3", "3", "3", "0", "0", "240000", "30000", "210000"]


def test_what_nobody_reports_is_absent(files: Any, gpufleet: Any) -> None:
    mute = {
        "memoryTotalMiB": None,
        "memoryUsedMiB": None,
        "utilizationPercent": None,
        "temperatureCelsius": None,
        "powerMilliwatts": None,
    }
    fleet = files.write(files.idle("node-1", 1, **mute))
    told = gpufleet("summary", "--fleet", fleet, "-o", "json").json
    assert {told[name] for name in MEASURED} == {None}
    assert gpufleet("summary", "--fleet", fleet).out.splitlines()[1].split()[-7:] == ["-"] * 7
    stale = gpufleet(
        "summary", "--fleet", files.write(files.idle("node-1")), "--now", "2026-01-02T00:00:00Z", "-o", "json"
    )
    assert stale.json["devices"] == 2
    assert {stale.json[name] for name in MEASURED} == {None}
