"""A malformed object of one pod or node is decoded or skipped, and other workloads are still placed."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_api.names import AGENT_FIELD_MANAGER, API_VERSION, REPLICA_LABEL, RESOURCE, WORKLOAD_KIND, WORKLOAD_LABEL
from gpufleet_operator.cache import decode, decode_pod
from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.cache.decode import Decoder
from gpufleet_operator.cache.store import Store, Stored
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.decide.template_check import check_templates
from gpufleet_operator.model.state_types import Limits, PassState
from gpufleet_testing.hypothesis_profiles import examples
from gpufleet_testing.operator import make
from gpufleet_testing.operator.mutations import Path, changed, paths, variants

BATCH = 60
"""Malformed objects in one snapshot."""

META = {
    "uid": "uid-x",
    "name": "x",
    "namespace": "ml",
    "resourceVersion": "7",
    "creationTimestamp": "2026-01-01T00:00:00Z",
}
MOMENT = "2026-01-02T03:04:04.000000Z"

POD: dict[str, Any] = {
    "metadata": {
        **META,
        "labels": {WORKLOAD_LABEL: "other", REPLICA_LABEL: "0"},
        "annotations": {"a": "b"},
        "ownerReferences": [
            {"apiVersion": API_VERSION, "kind": WORKLOAD_KIND, "uid": "uid-other", "controller": True},
        ],
    },
    "spec": {
        "nodeName": "node-1",
        "priority": 5,
        "schedulingGates": [{"name": "example.com/quota"}],
        "containers": [{"name": "main", "resources": {"requests": {"cpu": "1"}, "limits": {RESOURCE: "1"}}}],
        "initContainers": [{"name": "i", "restartPolicy": "Always", "resources": {"requests": {"memory": "1"}}}],
        "overhead": {"cpu": "1"},
        "nodeSelector": {"a": "b"},
        "tolerations": [{"key": "a"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]},
                    ]
                }
            }
        },
    },
    "status": {
        "phase": "Running",
        "reason": "r",
        "message": "m",
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "m"}],
        "containerStatuses": [
            {
                "name": "main",
                "state": {"running": {"startedAt": "2026-01-02T03:00:00Z"}},
                "lastState": {"terminated": {"containerID": "c"}},
                "allocatedResourcesStatus": [{"name": RESOURCE, "resources": [{"resourceID": "GPU-1-0"}]}],
            }
        ],
    },
}
NODE: dict[str, Any] = {
    "metadata": {**META, "name": "node-1", "labels": {"a": "b"}},
    "spec": {"unschedulable": False, "taints": [{"key": "k", "effect": "NoSchedule", "value": "v"}]},
    "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110", RESOURCE: "2"}},
}

ODD: tuple[Any, ...] = (None, True, 0, -1, 2**40, 2**70, 0.5, "", "x", "8E", "1e9999", "99999.99", "3000000.0")
ODD = (*ODD, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "2026-01-01T00:00:00")
ODD = (*ODD, "m" * 300, [], {}, [None], ["x"], [{}], {"a": None}, {"cpu": "8E"}, [[]], "GPU-2-0", ["GPU-2-0"] * 2)


def telemetry() -> dict[str, Any]:
    """Returns a GPUTelemetry of node-1 as JSON, with a reservation, a holder and every measurement."""
    pod = make.running_pod("other")
    found = make.telemetry("node-1", assignments=[make.assignment(pod, workload="other")], held={"GPU-1-0": pod})
    body: dict[str, Any] = found.model.model_dump(by_alias=True, mode="json", exclude_none=True)
    agent = {"manager": AGENT_FIELD_MANAGER, "subresource": "status", "time": MOMENT}
    body["metadata"] = {**META, **body["metadata"], "managedFields": [agent]}
    return body


CONVERT: dict[str, Callable[[dict[str, Any]], Any]] = {
    "pod": decode_pod.pod,
    "bound_pod": decode.bound_pod,
    "node": decode.node,
    "telemetry": decode.telemetry,
}
OBJECTS: dict[str, dict[str, Any]] = {"pod": POD, "bound_pod": POD, "node": NODE, "telemetry": telemetry()}


def places(body: dict[str, Any]) -> list[Path]:
    """Returns all paths except those of the object's identity."""
    return [p for p in paths(body) if not (p[0] == "metadata" and (len(p) == 1 or p[1] in META))]


def moved(body: dict[str, Any], number: int) -> dict[str, Any]:
    """Returns the object on node-`number` instead of node-1, with devices and pods of that node."""
    text = json.dumps(body).replace('"node-1"', f'"node-{number}"').replace("GPU-1-", f"GPU-{number}-")
    found: dict[str, Any] = json.loads(text.replace("uid-x", f"uid-x-{number}").replace("uid-other", f"uid-o-{number}"))
    return found


def place_beside(kind: str, bodies: Sequence[dict[str, Any]]) -> None:
    """Asserts that a valid pod is placed although these objects exist. Each node object is on a node of its own."""
    cache, good = Cache(), make.workload("good")
    _put(cache.workloads, good, make.workload("other"))
    _put(cache.pods, make.pod(good))
    _put(cache.nodes, make.node("node-1"), make.node("node-2"))
    _put(cache.telemetry, make.telemetry("node-1"), make.telemetry("node-2"))
    stores: dict[str, Store[Any]] = {
        "pod": cache.pods,
        "bound_pod": cache.other_pods,
        "node": cache.nodes,
        "telemetry": cache.telemetry,
    }
    store = stores[kind]
    for number, body in enumerate(bodies, 3):
        if kind in ("node", "telemetry"):
            node = f"node-{number}"
            _put(*((cache.telemetry, make.telemetry(node)) if kind == "node" else (cache.nodes, make.node(node))))
            store.apply(moved(body, number))
        elif (item := store.decode(body)) is not None:
            store.put(replace(item, uid=f"{item.uid}-{number}"))
    state, limits = PassState(), Limits()
    for _ in range(2):
        templates = check_templates(cache.workloads.items, state.templates, limits.resources)
        snapshot = cache.snapshot(now=make.NOW, name_seed="s", templates=templates, state=state, limits=limits)
        actions = decide(snapshot)
        state = actions.state
        assert "good-0-a" in {r.name for r in actions.releases}
        assert not actions.unexpected_errors


def _put(store: Store[Any], *items: Stored) -> None:
    for item in items:
        store.put(item)


@pytest.mark.parametrize("kind", list(OBJECTS))
def test_another_value_at_any_place_stops_no_other_workload(kind: str) -> None:
    good = OBJECTS[kind]
    assert CONVERT[kind](good) is not None
    found = list(variants(good, places(good), ODD))
    for start in range(0, len(found), BATCH):
        batch = found[start : start + BATCH]
        try:
            place_beside(kind, [body for _, _, body in batch])
        except Exception:
            for path, value, body in batch:
                print(path, repr(value))  # noqa: T201 - the last one printed is the cause
                place_beside(kind, [body])
            raise


@examples(30)
@given(st.data())
def test_several_other_values_stop_no_other_workload(data: st.DataObject) -> None:
    kind, body = data.draw(st.sampled_from(list(OBJECTS.items())))
    for _ in range(data.draw(st.integers(1, 3))):
        body = changed(body, data.draw(st.sampled_from(places(body))), data.draw(st.sampled_from(ODD)))

    place_beside(kind, [body])


def test_an_object_without_identity_is_counted_once_and_skipped() -> None:
    reported: list[str] = []
    decoder = Decoder(reported.append)
    lacking = {**POD, "metadata": {"uid": "u", "resourceVersion": "1"}}

    assert decoder.decode(decode_pod.pod, lacking) is None
    assert decoder.decode(decode_pod.pod, lacking) is None
    assert decoder.decode(decode.bound_pod, {}) is None
    assert reported == ["pod", "bound_pod"]


def test_an_object_that_is_nested_too_deeply_is_skipped() -> None:
    def convert(body: object) -> object:
        return convert(body)

    assert Decoder().decode(convert, POD) is None


def test_an_object_that_becomes_malformed_keeps_its_last_state() -> None:
    """A pod whose last state cannot be decoded still holds its devices."""
    cache = Cache()
    cache.pods.apply(POD)
    lacking = {**POD, "metadata": {**POD["metadata"], "resourceVersion": "8", "creationTimestamp": "x"}}

    cache.pods.apply(lacking)
    cache.pods.replace([], "9", undecodable=["uid-x"])
    assert set(cache.pods.items) == {"uid-x"}

    cache.pods.delete(lacking)
    assert not cache.pods.items
    assert not cache.pods.deleted
