"""Conditions of GPUTelemetries and Nodes, by what the agent last reported and when."""

from dataclasses import replace
from datetime import timedelta

import pytest

from gpufleet_api.condition import Condition, ConditionStatus
from gpufleet_api.telemetry.gpu_telemetry import TelemetryStatus
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.decide.state import record_results
from gpufleet_operator.model.objects import Node, NodeCondition, Telemetry
from gpufleet_operator.model.report_actions import Reports
from gpufleet_operator.model.state_types import Limits
from gpufleet_testing.operator import make

XID = {
    "state": "Unhealthy",
    "reasons": [{"code": "XidError", "message": "XID 79", "since": "2026-01-02T03:00:00Z"}],
}
Found = tuple[str, str]
"""Status and reason."""


def reports(*objects: Telemetry | Node, limits: Limits | None = None) -> Reports:
    return decide(make.snapshot(*objects, limits=limits)).reports


def found(written: Reports) -> dict[str, Found]:
    (write,) = written.telemetry
    return {c.type: (str(c.status), c.reason) for c in write.conditions}


def node_condition(written: Reports) -> NodeCondition | None:
    (write,) = written.nodes
    return write.condition


def summarized(telemetry: Telemetry, state: str) -> Telemetry:
    status = make.telemetry_status(telemetry).model_dump(by_alias=True)
    status["summary"] = {**status["summary"], "state": state}
    model = telemetry.model.model_copy(update={"status": TelemetryStatus.model_validate(status)})
    return replace(telemetry, model=model)


@pytest.mark.parametrize(
    ("telemetry", "fresh", "healthy"),
    [
        (make.telemetry(), ("True", "Fresh"), ("True", "DevicesHealthy")),
        (make.telemetry(health=XID), ("True", "Fresh"), ("False", "XidError")),
        (make.telemetry(age=200), ("False", "Stale"), ("Unknown", "Stale")),
        (make.telemetry(age=200, health=XID), ("False", "Stale"), ("Unknown", "Stale")),
        (summarized(make.telemetry(), "Stale"), ("False", "Stale"), ("Unknown", "Stale")),
        (summarized(make.telemetry(), "NoDriver"), ("False", "NoDriver"), ("Unknown", "NoDriver")),
        (summarized(make.telemetry(health=XID), "NoDriver"), ("False", "NoDriver"), ("False", "XidError")),
        (make.telemetry(devices=0), ("True", "Fresh"), ("Unknown", "NoDevicesFound")),
    ],
    ids=["well", "fault", "stale", "stale with a fault", "no sample", "no driver", "no driver after a fault", "no GPU"],
)
def test_conditions_follow_the_report_of_the_agent(telemetry: Telemetry, fresh: Found, healthy: Found) -> None:
    assert found(reports(telemetry)) == {"Fresh": fresh, "Healthy": healthy}


def test_report_that_cannot_be_decoded_is_not_fresh() -> None:
    model = make.telemetry().model.model_copy(update={"status": None})
    broken = replace(make.telemetry(), model=model, decode_error="the status of the agent is invalid: status.devices")

    written = reports(broken)

    assert found(written) == {"Fresh": ("False", "Invalid"), "Healthy": ("Unknown", "Invalid")}
    assert "status.devices" in written.telemetry[0].conditions[0].message


def test_object_without_a_status_gets_no_condition() -> None:
    model = make.telemetry().model.model_copy(update={"status": None})

    assert reports(replace(make.telemetry(), model=model, confirmed_at=None)).telemetry == ()


def test_message_lists_each_unhealthy_device_with_its_faults() -> None:
    (condition,) = [c for c in reports(make.telemetry(health=XID)).telemetry[0].conditions if c.type == "Healthy"]

    assert condition.message == "GPU-1-0: XidError (XID 79); GPU-1-1: XidError (XID 79)"


def test_message_of_64_faulty_devices_stays_within_its_limit() -> None:
    long = {
        "state": "Unhealthy",
        "reasons": [{"code": "XidError", "message": "x" * 256, "since": "2026-01-01T00:00:00Z"}],
    }

    condition = reports(make.telemetry(devices=64, health=long)).telemetry[0].conditions[1]

    assert len(condition.message) < 4096
    assert condition.message.endswith(" more")


def stored(*findings: tuple[str, str, str], message: str = "m") -> list[Condition]:
    return [
        Condition(
            type=kind,
            status=ConditionStatus(status),
            reason=reason,
            message=message,
            last_transition_time="2026-01-01T00:00:00Z",
        )
        for kind, status, reason in findings
    ]


def test_transition_time_changes_with_the_status_only() -> None:
    before = stored(("Fresh", "True", "Other"), ("Healthy", "False", "XidError"))

    conditions = reports(make.telemetry(conditions=before)).telemetry[0].conditions

    assert [c.last_transition_time for c in conditions] == ["2026-01-01T00:00:00Z", "2026-01-02T03:04:05Z"]


def test_changed_message_alone_is_written_once_a_minute() -> None:
    before = stored(("Fresh", "True", "Fresh"), ("Healthy", "True", "DevicesHealthy"), message="old")
    snapshot = make.snapshot(make.telemetry(conditions=before))
    first = decide(snapshot)

    def again(seconds: float) -> Reports:
        return decide(make.later(snapshot, first, seconds)).reports

    assert len(first.reports.telemetry) == 1
    assert again(30).telemetry == ()
    assert len(again(61).telemetry) == 1


def test_node_has_the_health_of_its_devices() -> None:
    assert node_condition(reports(make.telemetry(health=XID))) == NodeCondition(
        ConditionStatus.FALSE,
        "XidError",
        "GPU-1-0: XidError (XID 79); GPU-1-1: XidError (XID 79)",
        "2026-01-02T03:04:05Z",
    )


def test_node_with_stale_telemetry_has_unknown_health() -> None:
    condition = node_condition(reports(make.telemetry(age=200)))

    assert condition is not None
    assert (condition.status, condition.reason) == (ConditionStatus.UNKNOWN, "Stale")


def test_node_without_telemetry_loses_the_condition() -> None:
    old = NodeCondition(ConditionStatus.TRUE, "DevicesHealthy", "m", "2026-01-01T00:00:00Z")

    assert node_condition(reports(make.node(condition=old))) is None
    assert reports(make.node()).nodes == (), "nothing to remove"


def test_node_without_a_device_gets_no_condition() -> None:
    assert reports(make.telemetry(devices=0)).nodes == ()


def test_disabled_node_conditions_are_not_written() -> None:
    assert reports(make.telemetry(), limits=Limits(node_conditions=False)).nodes == ()


def test_stored_conditions_are_not_written_again() -> None:
    first = reports(make.telemetry())
    same = make.telemetry(conditions=first.telemetry[0].conditions)

    again = reports(same, make.node(condition=node_condition(first)))

    assert again.empty


def test_node_that_settled_is_compared_again_when_it_changes() -> None:
    first = reports(make.telemetry())
    node = make.node(condition=node_condition(first))
    snapshot = make.snapshot(make.telemetry(conditions=first.telemetry[0].conditions), node)
    settled = decide(snapshot).state

    changed = replace(node, condition=None, resource_version="41")  # removed by another client
    again = decide(replace(make.with_state(snapshot, settled), nodes={"node-1": changed}))

    assert decide(make.with_state(snapshot, settled)).reports.empty
    assert len(again.reports.nodes) == 1
    stale = decide(replace(make.with_state(snapshot, settled), now=snapshot.now + timedelta(seconds=200)))
    assert found(stale.reports)["Fresh"] == ("False", "Stale")


def test_number_of_reports_in_a_pass_is_limited() -> None:
    many = [make.telemetry(f"node-{number}", devices=1) for number in range(100)]

    written = reports(*many)

    assert (len(written.telemetry), len(written.nodes)) == (32, 32)


def test_failed_report_is_retried_after_its_backoff() -> None:
    snapshot = make.snapshot(make.telemetry())
    first = decide(snapshot)
    key = first.reports.telemetry[0].key
    failed = record_results(first.state, [(key, "forbidden", "apiserver")], snapshot.now)

    at_once = decide(make.with_state(snapshot, failed))
    after = decide(replace(snapshot, now=snapshot.now + timedelta(seconds=2), previous_state=failed))

    assert at_once.reports.telemetry == ()
    assert len(after.reports.telemetry) == 1
