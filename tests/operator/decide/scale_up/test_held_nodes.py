"""Nodes that cluster-autoscaler must not remove."""

import pytest

from gpufleet_operator.cache.decode import node as decode
from gpufleet_operator.decide.scale_up.held_nodes import NodeMarks, node_marks
from gpufleet_operator.model.objects import Pod
from gpufleet_testing.operator import make


def marks(pod: Pod, *, held: bool = False, refused: tuple[str, ...] = ()) -> NodeMarks:
    """The annotations of two nodes; a device of the first is reserved for the pod."""
    nodes = [make.node(scale_down_held=held), make.node("node-2")]
    return node_marks(nodes, {pod.uid: pod}, {pod.uid: {"node-1"}}, refused)


@pytest.mark.parametrize("pod", [make.pod(), make.released_pod()], ids=["gated", "released"])
def test_node_with_devices_for_an_unbound_pod_is_kept(pod: Pod) -> None:
    assert marks(pod) == NodeMarks(to_set=("node-1",))
    assert marks(pod, held=True) == NodeMarks()


def test_annotation_is_removed_when_the_pod_is_bound() -> None:
    assert marks(make.running_pod()) == NodeMarks()
    assert marks(make.running_pod(), held=True) == NodeMarks(to_remove=("node-1",))


def test_annotation_is_removed_when_the_pod_is_gone() -> None:
    found = node_marks([make.node(scale_down_held=True)], {}, {"gone": {"node-1"}}, ())

    assert found == NodeMarks(to_remove=("node-1",))


def test_node_with_another_value_of_another_client_is_left_alone() -> None:
    assert marks(make.pod(), refused=("node-1",)) == NodeMarks()


@pytest.mark.parametrize(
    ("manager", "operation", "held"),
    [
        ("gpufleet-operator", "Apply", True),
        ("gpufleet-operator", "Update", False),
        ("kubectl-annotate", "Apply", False),
    ],
)
def test_annotation_is_that_of_the_client_that_applied_it(manager: str, operation: str, *, held: bool) -> None:
    fields: dict[str, object] = {
        "f:metadata": {"f:annotations": {"f:cluster-autoscaler.kubernetes.io/scale-down-disabled": {}}}
    }
    entry = {"manager": manager, "operation": operation, "fieldsV1": fields}
    meta = {"uid": "u", "name": "node-1", "managedFields": [entry]}

    assert decode({"metadata": meta}).scale_down_held is held
