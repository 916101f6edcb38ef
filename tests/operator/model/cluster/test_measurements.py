"""Which reports a decision may wait for."""

from dataclasses import replace
from typing import Any

import pytest

from gpufleet_operator.model.cluster.measurements import measured_again, measurements_only
from gpufleet_operator.model.objects import Telemetry
from gpufleet_testing.operator import make

POD = make.pod("w")
RESERVED = make.assignment(POD)
REPORT = make.telemetry(covered=5)


def with_device(**fields: Any) -> Telemetry:
    status = make.telemetry_status(REPORT)
    first = status.devices[0].model_copy(update=fields)
    devices = [first, *status.devices[1:]]
    model = REPORT.model.model_copy(update={"status": status.model_copy(update={"devices": devices})})
    return replace(REPORT, model=model, resource_version="99")


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(make.telemetry(covered=5, age=0.0), id="later"),
        pytest.param(make.telemetry(covered=6), id="the reservations that were read"),
        pytest.param(with_device(temperature_celsius=80), id="temperature"),
        pytest.param(with_device(memory_used_mib=9, utilization_percent=99), id="use"),
    ],
)
def test_new_measurements_may_wait(after: Telemetry) -> None:
    assert measurements_only(REPORT, after)


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(None, id="deleted"),
        pytest.param(make.telemetry(covered=5, generation=6, assignments=[RESERVED]), id="reservation"),
        pytest.param(make.telemetry(covered=5, devices=3), id="another device"),
        pytest.param(replace(make.telemetry(covered=5), deleting=True), id="deletion"),
        pytest.param(replace(make.telemetry(covered=5), uid="another"), id="another object"),
        pytest.param(make.telemetry(covered=5, held={"GPU-1-0": POD}), id="holder"),
        pytest.param(with_device(withheld="no device node"), id="withheld"),
    ],
)
def test_other_changes_do_not_wait(after: Telemetry | None) -> None:
    assert not measurements_only(REPORT, after)


def test_first_report_does_not_wait() -> None:
    assert not measurements_only(None, REPORT)


@pytest.mark.parametrize(
    ("covered", "alone"), [pytest.param(5, True, id="measured"), pytest.param(6, False, id="reservations read as well")]
)
def test_report_that_reservations_were_read_is_no_new_measurement(covered: int, alone: bool) -> None:
    assert measured_again(REPORT, make.telemetry(covered=covered, age=0.0)) is alone
