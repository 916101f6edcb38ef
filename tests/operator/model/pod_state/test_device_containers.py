"""Devices for several containers and sidecars, from the template to the reservation."""

from collections.abc import Mapping
from typing import Any

from gpufleet_api.names import RESOURCE
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.model.extended_resources import DEFAULTS
from gpufleet_operator.model.objects import Workload
from gpufleet_operator.model.pod_state import device_containers
from gpufleet_operator.pods import build
from gpufleet_operator.pods.validate import validate_template
from gpufleet_testing.operator import make

TWO = {"count": 3, "containers": [{"name": "main", "count": 2}, {"name": "server", "count": 1}]}
POD: dict[str, Any] = {
    "restartPolicy": "Never",
    "containers": [{"name": "log"}, {"name": "main"}],
    "initContainers": [{"name": "setup"}, {"name": "server", "restartPolicy": "Always"}],
}


def workload(devices: Mapping[str, Any], pod: Mapping[str, Any] | None = None) -> Workload:
    return make.workload(template={"spec": pod or POD}, devices=devices)


def errors(devices: Mapping[str, Any]) -> tuple[str, ...]:
    return validate_template(make.spec(workload(devices)), DEFAULTS)


def test_each_named_container_requests_its_devices() -> None:
    found = workload(TWO)

    body = build.build(found, make.spec(found), 0, "train-0-x", DEFAULTS)["spec"]

    limits = {c["name"]: (c.get("resources") or {}).get("limits") for c in body["initContainers"] + body["containers"]}
    assert limits == {"setup": None, "server": {RESOURCE: "1"}, "log": None, "main": {RESOURCE: "2"}}


def test_reservation_lists_containers_in_the_order_of_start() -> None:
    pod = make.pod()

    actions = decide(make.snapshot(workload(TWO), pod, make.telemetry(devices=4)))

    (assignment,) = actions.reserves[0].assignments
    assert assignment.containers is not None
    assert [(c.name, c.count) for c in assignment.containers] == [("server", 1), ("main", 2)]
    assert assignment.container == "server"
    first, second = device_containers.split(assignment)
    assert (first.container, second.container) == ("server", "main")
    assert [*first.devices] == assignment.devices[:1]
    assert second.devices == {*assignment.devices[1:]}
    assert '"containers":[{"name":"server","count":1},{"name":"main","count":2}]' in str(actions.releases[0].patch)


def test_reservation_of_one_container_names_only_that() -> None:
    actions = decide(make.snapshot(workload({"count": 1, "container": "server"}), make.pod(), make.telemetry()))

    (assignment,) = actions.reserves[0].assignments
    assert (assignment.container, assignment.containers) == ("server", None)


def test_unknown_containers_are_errors() -> None:
    assert errors(TWO) == ()
    assert errors({"count": 1, "containers": [{"name": "setup"}]}) == (
        'spec.devices.containers[0].name: Not found: "setup": must be one of: log, main, server',
    )
    assert errors({"count": 1, "container": "other"}) == (
        'spec.devices.container: Not found: "other": must be one of: log, main, server',
    )


def test_limit_that_differs_from_the_spec_is_an_error() -> None:
    pod = {**POD, "containers": [{"name": "log"}, {"name": "main", "resources": {"limits": {RESOURCE: "1"}}}]}

    (error,) = validate_template(make.spec(workload(TWO, pod)), DEFAULTS)

    assert "must be omitted or equal spec.devices (count 2, mode Exclusive)" in error
