"""Compact models equal those that they were made from."""

import sys
from typing import Any

from gpufleet_api.telemetry.gpu_telemetry import GPUTelemetry
from gpufleet_operator.cache import decode
from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.cache.compact import UNREAD_OF_DEVICES, compact, without_unread
from gpufleet_testing.operator import make
from gpufleet_testing.operator.synthetic import SyntheticFleet

FLEET = SyntheticFleet(2, 2, 0, make.NOW)


def test_compact_model_is_equal_and_has_the_same_given_fields() -> None:
    body = FLEET.telemetry(0)
    plain, small = GPUTelemetry.model_validate(body), compact(GPUTelemetry.model_validate(body))

    assert small == plain
    assert small.model_dump(exclude_unset=True) == plain.model_dump(exclude_unset=True)


def test_decoded_telemetry_has_everything_but_what_nothing_reads() -> None:
    body = FLEET.telemetry(0)
    plain, found = GPUTelemetry.model_validate(body), decode.telemetry(body).model

    assert found.status is not None
    assert plain.status is not None
    for small, full in zip(found.status.devices, plain.status.devices, strict=True):
        dumped = full.model_dump(by_alias=True)
        assert small.model_dump(by_alias=True) == {
            key: value for key, value in dumped.items() if key not in UNREAD_OF_DEVICES
        }
    assert {field.alias for field in type(found.status.devices[0]).model_fields.values()} >= UNREAD_OF_DEVICES


def test_status_that_is_not_a_map_is_left_to_the_validation() -> None:
    odd: tuple[Any, ...] = (None, 7, [], {"devices": 3}, {"devices": [4]})
    for status in odd:
        body = {"metadata": {"name": "n"}, "status": status}
        assert without_unread(body) == body


def test_equal_texts_of_two_objects_are_stored_once() -> None:
    cache = Cache()
    FLEET.fill(cache)
    one, other = (cache.telemetry.by_name[name].status for name in ("node-00000", "node-00001"))
    assert one is not None
    assert other is not None
    assert one.devices[0].model is other.devices[0].model
    assert (
        one.devices[0].nvlink_peers[0] is one.devices[1].uuid or one.devices[1].nvlink_peers[0] is one.devices[0].uuid
    )


def test_equal_parts_of_templates_and_policies_are_stored_once() -> None:
    cache = Cache()
    FLEET.fill(cache)
    one, other = (cache.workloads.items[f"uid-job-00000{number}"].model for number in (0, 1))
    assert one is not None
    assert other is not None
    mine, theirs = (w.spec.pod_spec["containers"][0] for w in (one, other))

    assert mine is theirs
    assert mine == FLEET.workload(0)["spec"]["template"]["spec"]["containers"][0]
    assert one.spec.pod_template["metadata"] != other.spec.pod_template["metadata"]
    assert one.spec.placement is other.spec.placement


def test_values_that_only_compare_as_equal_are_not_stored_once() -> None:
    different: tuple[Any, ...] = (1, True, 1.0, "1", None, [], {}, 1)
    templates: list[dict[str, Any]] = [{"spec": {"a": [{"b": value}]}} for value in different]
    found = [
        decode.workload({**(body := FLEET.workload(0)), "spec": {**body["spec"], "template": template}}).model
        for template in templates
    ]
    assert [repr(w.spec.template) for w in found if w is not None] == [repr(template) for template in templates]


def test_fields_of_a_compact_model_need_a_fraction_of_the_memory() -> None:
    plain = GPUTelemetry.model_validate(without_unread(FLEET.telemetry(0)))
    small = decode.telemetry(FLEET.telemetry(0)).model
    assert plain.status is not None
    assert small.status is not None

    assert 3 * sys.getsizeof(vars(small.status.devices[0])) < sys.getsizeof(vars(plain.status.devices[0]))


def test_other_pods_with_equal_requests_share_them() -> None:
    one, other = (decode.bound_pod(body) for body in list(FLEET.other_pods(0))[:2])
    assert one.uid != other.uid
    assert one.requests is other.requests
    assert one.requests == {"cpu": 100, "memory": 128 * 2**20}
