"""Whatever stands in an object of one pod or node, it comes in or is left out, and the others' workloads are placed."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpufleet_api.names import AGENT_FIELD_MANAGER, API_VERSION, REPLICA_LABEL, RESOURCE, WORKLOAD_KIND, WORKLOAD_LABEL
from gpufleet_operator.cache import decode, decode_pod
from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.cache.decode import Decoder
from gpufleet_operator.cache.store import Store, Stored
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.model.state_types import Limits, PassState
from gpufleet_testing.operator import make

Path = tuple[Any, ...]

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
    """A GPUTelemetry of node-1 as JSON, with a reservation, a holder and every measurement."""
    pod = make.running_pod("other")
    found = make.telemetry("node-1", assignments=[make.assignment(pod, workload="other")], held={"GPU-1-0": pod})
    body: dict[str, Any] = found.model.model_dump(by_alias=True, mode="json", exclude_none=True)
    agent = {"manager": AGENT_FIELD_MANAGER, "subresource": "status", "time": MOMENT}
    body["metadata"] = {**META, **body["metadata"], "managedFields": [agent]}
    return body


def paths(node: Any, here: Path = ()) -> Iterator[Path]:
    """Every node of a document but those of its identity."""
    if here and not (here[0] == "metadata" and (len(here) == 1 or here[1] in META)):
        yield here
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from paths(value, (*here, key))


def changed(document: Any, path: Path, value: Any) -> Any:
    """The document with another value at a path."""
    document = copy.deepcopy(document)
    parent = document
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = value
    return document


def live_beside(kind: str, *bodies: Any) -> None:
    """A good workload's pod is placed although these objects are there. (Pods of the same uid get one of their own.)"""
    cache, good = Cache(), make.workload("good")
    _put(cache.workloads, good, make.workload("other"))
    _put(cache.pods, make.pod(good))
    _put(cache.nodes, make.node("node-1"), make.node("node-2"))
    _put(cache.telemetry, make.telemetry("node-1"), make.telemetry("node-2"))
    stores: dict[str, Store[Any]] = {
        "pod": cache.pods,
        "bound_pod": cache.foreign_pods,
        "node": cache.nodes,
        "telemetry": cache.telemetry,
    }
    views = [view for body in bodies if (view := stores[kind].decode(body)) is not None]
    _put(stores[kind], *(replace(view, uid=f"{view.uid}-{number}") for number, view in enumerate(views)))
    memory = PassState()
    for _ in range(2):
        actions = decide(cache.snapshot(now=make.NOW, name_seed="s", memory=memory, limits=Limits()))
        memory = actions.memory
        assert "good-0-a" in {r.name for r in actions.releases}
        assert not actions.unexpected_errors


def _put(store: Store[Any], *items: Stored) -> None:
    for item in items:
        store.put(item)


CONVERT: dict[str, Callable[[dict[str, Any]], Any]] = {
    "pod": decode_pod.pod,
    "bound_pod": decode.bound_pod,
    "node": decode.node,
    "telemetry": decode.telemetry,
}


def objects() -> dict[str, dict[str, Any]]:
    return {"pod": POD, "bound_pod": POD, "node": NODE, "telemetry": telemetry()}


@pytest.mark.parametrize("kind", ["pod", "bound_pod", "node", "telemetry"])
def test_another_value_anywhere_stops_nobody_else(kind: str) -> None:
    good = objects()[kind]
    assert CONVERT[kind](good) is not None
    for number, path in enumerate(paths(good)):
        if kind in ("pod", "bound_pod"):
            live_beside(kind, *(changed(good, path, value) for value in ODD))
            continue
        for value in ODD[number % 6 :: 6]:  # a node has one object of each kind, and each costs a snapshot
            live_beside(kind, changed(good, path, value))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_several_other_values_stop_nobody_else(data: st.DataObject) -> None:
    kind, body = data.draw(st.sampled_from(list(objects().items())))
    for _ in range(data.draw(st.integers(1, 3))):
        body = changed(body, data.draw(st.sampled_from(list(paths(body)))), data.draw(st.sampled_from(ODD)))

    live_beside(kind, body)


def test_an_object_without_identity_is_counted_once_and_left_out() -> None:
    told: list[str] = []
    decoder = Decoder(told.append)
    lacking = {**POD, "metadata": {"uid": "u", "resourceVersion": "1"}}

    assert decoder.decode(decode_pod.pod, lacking) is None
    assert decoder.decode(decode_pod.pod, lacking) is None
    assert decoder.decode(decode.bound_pod, {}) is None
    assert told == ["pod", "bound_pod"]


def test_what_can_no_longer_be_read_stays_as_it_was() -> None:
    """A pod whose last state we can't read still holds its devices."""
    cache = Cache()
    cache.pods.apply(POD)
    lacking = {**POD, "metadata": {**POD["metadata"], "resourceVersion": "8", "creationTimestamp": "x"}}

    cache.pods.apply(lacking)
    cache.pods.replace([], "9", undecodable=["uid-x"])
    assert set(cache.pods.items) == {"uid-x"}

    cache.pods.delete(lacking)
    assert not cache.pods.items
    assert not cache.pods.deleted
