"""The age of a saved file is ignored by default; on request it counts as for the operator."""

from gpufleet_testing.cli.clusters import agent_lease
from gpufleet_testing.cli.files import ObjectFiles, gpu, idle_node, telemetry
from gpufleet_testing.cli.runner import run_cli

IGNORED = "telemetry age ignored: each node is taken as of its last report (see --now and --stale-after)"


def usable(fleet: str, *arguments: str) -> tuple[int, bool]:
    done = run_cli("rank", "--from", fleet, "-o", "json", *arguments)
    assert done.code == 0
    return done.json["devicesEligible"], IGNORED in done.notes


def test_age_is_ignored_by_default_with_a_note(files: ObjectFiles) -> None:
    fleet = files.write(idle_node("node-1", observed="2020-01-01T00:00:00Z"))
    assert usable(fleet) == (2, True)


def test_now_option_uses_the_operators_limit(files: ObjectFiles) -> None:
    fleet = files.write(
        idle_node("node-1", observed="2026-01-01T00:00:00Z"), idle_node("node-2", observed="2026-01-01T00:01:00Z")
    )
    assert usable(fleet, "--now", "2026-01-01T00:01:30Z") == (4, False)
    assert usable(fleet, "--now", "2026-01-01T01:01:31+01:00") == (2, False)
    assert usable(fleet, "--now", "2026-01-01T00:01:31Z", "--stale-after", "120") == (4, False)
    done = run_cli("explain", "--from", fleet, "--now", "2026-01-01T00:01:31Z", "-o", "json")
    assert {d["message"] for d in done.json["devices"]} == {"telemetry is 91 s old, limit 90 s", ""}


def test_stale_after_option_uses_the_current_time(files: ObjectFiles) -> None:
    fleet = files.write(idle_node("node-1", observed="2020-01-01T00:00:00Z"))
    assert usable(fleet, "--stale-after", "90") == (0, False)
    assert usable(fleet, "--stale-after", "1e12") == (2, False)


def test_age_is_by_the_apiservers_time_of_the_write(files: ObjectFiles) -> None:
    node = idle_node("node-1", observed="2030-01-01T00:00:00Z")
    node["metadata"]["managedFields"] = [
        {"manager": "gpufleet-agent", "subresource": "status", "time": "2026-01-01T00:00:00Z"},
        {"manager": "gpufleet-operator", "time": "2026-01-01T09:00:00Z"},
    ]
    fleet = files.write(node)
    assert usable(fleet, "--now", "2026-01-01T00:01:00Z")[0] == 2
    assert usable(fleet, "--now", "2026-01-01T00:02:00Z")[0] == 0


def test_lease_in_the_files_confirms_the_report_that_it_names(files: ObjectFiles) -> None:
    node = idle_node("node-1", observed="2026-01-01T00:00:00Z")
    lease = agent_lease("node-1", "2026-01-01T00:00:00Z", "2026-01-01T00:04:30Z")
    other = agent_lease("node-1", "2025-12-31T23:55:00Z", "2026-01-01T00:04:30Z")
    now = ("--now", "2026-01-01T00:05:00Z")
    listed = {"apiVersion": "v1", "kind": "List", "items": [node, lease]}
    assert usable(files.write(listed), *now) == (2, False)
    assert usable(files.write(node, other), *now) == (0, False)
    assert usable(files.write(node), *now) == (0, False)
    assert usable(files.write(node, lease), "--now", "2026-01-01T00:06:01Z") == (0, False)


def test_sample_older_than_its_report_is_always_stale(files: ObjectFiles) -> None:
    stuck = gpu("node-1", 0, sampleTime="2025-12-31T23:58:00Z")
    fleet = files.write(telemetry("node-1", stuck, gpu("node-1", 1)))
    assert usable(fleet) == (1, True)


def test_malformed_time_is_bad_input(files: ObjectFiles) -> None:
    node = idle_node("node-1")
    fleet = files.write(node)
    for arguments, message in (
        (["--now", "noon"], "--now noon: must be an RFC 3339 time, such as 2026-01-02T03:04:05Z"),
        (["--stale-after", "nan"], "--stale-after nan: must be a number of seconds greater than or equal to 0"),
        (["--stale-after", "-1"], "--stale-after -1: must be a number of seconds greater than or equal to 0"),
        (["--stale-after", "soon"], "--stale-after soon: must be a number of seconds greater than or equal to 0"),
    ):
        done = run_cli("rank", "--from", fleet, *arguments)
        assert (done.code, done.err) == (2, f"error: {message}\n")
    node["metadata"]["managedFields"] = [{"manager": "gpufleet-agent", "subresource": "status", "time": "noon"}]
    broken = run_cli("rank", "--from", files.write(node), "--now", "2026-01-01T00:00:00Z")
    assert broken.code == 2
    assert "GPUTelemetry node-1: metadata.managedFields: cannot be decoded" in broken.err
