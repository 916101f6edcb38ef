"""The node affinity of a pod before the operator pinned it."""

import jsonpatch
import pytest

from gpufleet_operator.cache.decode_pod import pod as decode
from gpufleet_operator.decide.pressure.unpinned import unpinned
from gpufleet_operator.model.json_patch import JsonPatchOperation
from gpufleet_operator.pods.release import release
from gpufleet_testing.operator import make

LABEL = {"key": "zone", "operator": "In", "values": ["a"]}
FIELD = {"key": "metadata.name", "operator": "In", "values": ["node-1", "node-2"]}


@pytest.mark.parametrize(
    "terms",
    [
        pytest.param(None, id="no affinity"),
        pytest.param([{"matchExpressions": [LABEL]}], id="labels"),
        pytest.param([{"matchFields": [FIELD]}, {"matchExpressions": [LABEL]}], id="fields of its own, and labels"),
        pytest.param([{}, {"matchExpressions": [LABEL]}], id="an empty term, which matches no node"),
    ],
)
def test_pod_without_pin_needs_what_it_needed_before_its_release(terms: list[object] | None) -> None:
    affinity = (
        {}
        if terms is None
        else {
            "affinity": {
                "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
            }
        }
    )
    body = {
        "metadata": {
            "name": "a",
            "namespace": "ml",
            "uid": "u",
            "resourceVersion": "1",
            "annotations": {},
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"schedulingGates": [{"name": "gpufleet.dev/assignment"}], "containers": [], **affinity},
        "status": {},
    }
    gated = decode(body)
    patch: list[JsonPatchOperation] = [
        dict(operation) for operation in release(gated, "node-1", make.assignment(gated)) if operation["op"] != "test"
    ]
    released = decode(jsonpatch.apply_patch(body, patch))

    assert released.pinned == "node-1"
    assert unpinned(released).needs == gated.needs
