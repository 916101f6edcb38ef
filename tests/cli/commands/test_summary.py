"""Totals and means of the fleet. A quantity that no device reports is absent, never 0."""

from gpufleet_testing.cli.files import ObjectFiles, gpu, idle_node, telemetry
from gpufleet_testing.cli.runner import run_cli

MEASURED = (
    "memoryTotalMiB",
    "memoryUsedMiB",
    "memoryAvailableMiB",
    "meanUtilizationPercent",
    "meanTemperatureCelsius",
    "powerMilliwatts",
    "oldestSampleSeconds",
)


def test_totals_and_means_of_each_node_and_of_all(files: ObjectFiles) -> None:
    busy = telemetry("node-2", gpu("node-2", 0, memoryUsedMiB=30000, utilizationPercent=60, temperatureCelsius=70))
    fleet = files.write(idle_node("node-1"), busy)
    totals = run_cli("summary", "--from", fleet, "-o", "json").json
    assert [node["name"] for node in totals["nodes"]] == ["node-1", "node-2"]
    assert (totals["devices"], totals["healthy"], totals["idle"], totals["held"]) == (3, 3, 3, 0)
    assert (totals["memoryTotalMiB"], totals["memoryUsedMiB"], totals["memoryAvailableMiB"]) == (240000, 30000, 210000)
    assert totals["meanUtilizationPercent"] == 20
    assert totals["nodes"][1]["meanUtilizationPercent"] == 60
    assert totals["powerMilliwatts"] == 210000
    lines = [line.split() for line in run_cli("summary", "--from", fleet).out.splitlines()]
    assert [line[0] for line in lines] == ["NODE", "node-1", "node-2", "all"]
    assert lines[3][1:9] == ["3", "3", "3", "0", "0", "240000", "30000", "210000"]


def test_unreported_quantity_is_absent(files: ObjectFiles) -> None:
    mute: dict[str, None] = {
        "memoryTotalMiB": None,
        "memoryUsedMiB": None,
        "utilizationPercent": None,
        "temperatureCelsius": None,
        "powerMilliwatts": None,
    }
    fleet = files.write(idle_node("node-1", 1, observed="2026-01-01T00:00:00Z", **mute))
    totals = run_cli("summary", "--from", fleet, "-o", "json").json
    assert {totals[name] for name in MEASURED} == {None}
    assert run_cli("summary", "--from", fleet).out.splitlines()[1].split()[-7:] == ["-"] * 7
    stale = run_cli(
        "summary", "--from", files.write(idle_node("node-1")), "--now", "2026-01-02T00:00:00Z", "-o", "json"
    )
    assert stale.json["devices"] == 2
    assert {stale.json[name] for name in MEASURED} == {None}
