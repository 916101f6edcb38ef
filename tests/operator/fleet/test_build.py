"""An impossible value excludes its device, or at most its node."""

import pytest

from gpufleet_operator.decide.decide import decide
from gpufleet_operator.fleet import engine_input
from gpufleet_testing.operator import make
from gpufleet_testing.operator.fields import DeviceFields

IMPOSSIBLE: dict[str, DeviceFields] = {
    "a compute capability of its own": {"computeCapability": "99999.99"},
    "more memory used than there is": {"memoryUsedMiB": 81560},
}


@pytest.mark.parametrize("device", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_impossible_value_excludes_the_device(device: DeviceFields) -> None:
    workload = make.workload()

    actions = decide(make.snapshot(workload, make.pod(workload), make.telemetry(**device)))

    assert not actions.reserves
    assert not actions.inconsistencies
    assert "invalid sample: node-1/GPU-1-0: " in actions.unplaced[workload.uid].message


def test_impossible_promises_exclude_the_device() -> None:
    """Two hundred reservations of 16 TiB each, whose pods are deleted and not known to be terminated."""
    gone = [make.running_pod("gone", number) for number in range(200)]
    shares = [make.assignment(pod, workload="gone", memory_mib=2**24, compute_percent=100) for pod in gone]
    workload, other = make.workload(devices={"mode": "Shared", "memoryMiB": 2**24}), make.workload("other")
    bad = make.telemetry("node-1", devices=1, assignments=shares, memoryTotalMiB=2**31 - 1)

    actions = decide(make.snapshot(workload, other, make.pod(workload), make.pod(other), bad, make.telemetry("node-2")))

    assert [(r.name, r.node) for r in actions.releases] == [("other-0-a", "node-2")]
    assert not actions.inconsistencies


def test_unchecked_impossible_value_excludes_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_input, "check_sample", lambda *_: None)
    workload, bad = make.workload(), make.telemetry("node-1", computeCapability="99999.99")

    actions = decide(make.snapshot(workload, make.pod(workload), bad, make.telemetry("node-2")))

    assert [r.node for r in actions.releases] == ["node-2"]
    assert actions.inconsistencies == ("node-1/GPU-1-0: compute_capability is 99999.99, must be such as 9.0",)


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_any_wrong_clock_is_accepted(moment: str) -> None:
    workload = make.workload()

    actions = decide(make.snapshot(workload, make.pod(workload), make.telemetry("node-1", sampleTime=moment)))

    assert bool(actions.releases) == moment.startswith("9999")


@pytest.mark.parametrize("moment", ["2026-01-02T03:04:05", "2026-02-30T00:00:00Z", "0001-01-01T00:00:00+14:00"])
def test_malformed_timestamp_does_not_parse(moment: str) -> None:
    """The apiserver's date-time is wider than RFC 3339."""
    with pytest.raises(ValueError, match=r"sampleTime"):
        make.telemetry("node-1", sampleTime=moment)
