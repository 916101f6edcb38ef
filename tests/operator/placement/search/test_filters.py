"""Every filter against the oracle, and each by a case of its own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_operator.placement import Fleet
from gpufleet_operator.placement.explain.diagnosis import rejection_codes
from gpufleet_operator.placement.model import FilterReason, NodeState, Request, Share, Taint
from gpufleet_operator.placement.node_rules import MatchExpression, NodeSelectorTerm, Toleration
from gpufleet_operator.placement.search.filters import CODES, REASONS
from gpufleet_operator.placement.search.node_scores import node_scores
from gpufleet_operator.placement.search.query import Query
from gpufleet_testing.hypothesis_profiles import examples
from gpufleet_testing.placement import generators, oracle
from gpufleet_testing.placement.builders import (
    DeviceFields,
    NodeFields,
    RequestFields,
    make_device,
    make_node,
    make_request,
)

AFTER_THE_DEVICE = set(REASONS[CODES[FilterReason.INSUFFICIENT_DEVICES] - 1 :])


@examples(30)
@given(data=st.data())
def test_the_first_failed_test_of_every_device_is_the_oracles(data: st.DataObject) -> None:
    nodes, request = data.draw(generators.fleets()), data.draw(generators.requests())
    fleet, query = Fleet.of(nodes), Query.of(request)
    codes = rejection_codes(fleet, query, request.excluded_nodes.get(0, frozenset()))
    passing = node_scores(fleet, query).passing
    for node in nodes:
        for device in node.devices:
            row, column = fleet.where[device.uuid]
            reason = REASONS[codes[row, column] - 1]
            want = oracle.node_rejection(node, request, 0) or oracle.device_rejection(device, request.devices)
            assert (None if reason in AFTER_THE_DEVICE else reason) == want
            aside = node.name in request.excluded_nodes.get(0, frozenset())
            room = oracle.resource_rejection(node, request.pod)
            if not aside:
                assert passing[row, column] == (want is None and room is None)


@pytest.mark.parametrize(
    ("device", "needs", "want"),
    [
        ({"sample_age_seconds": None}, {}, FilterReason.TELEMETRY_STALE),
        ({"cordoned": "is cordoned: fan", "healthy": False}, {}, FilterReason.CORDONED),
        ({"cordoned": "is cordoned: fan", "held": True}, {}, FilterReason.CORDONED),
        ({"healthy": False}, {}, FilterReason.UNHEALTHY),
        ({"healthy": False, "sample_age_seconds": None}, {}, FilterReason.UNHEALTHY),
        ({"stale_reason": "old"}, {}, FilterReason.TELEMETRY_STALE),
        ({"held": True}, {}, FilterReason.IN_USE),
        ({"sharers": 1, "promised_memory_mib": 1}, {}, FilterReason.IN_USE),
        ({"sharers": 1, "promised_memory_mib": 1}, {"share": Share(1_000, 0)}, None),
        ({"held": True}, {"share": Share(1_000, 0)}, FilterReason.IN_USE),
        ({"process_count": 1}, {}, FilterReason.FOREIGN_PROCESS),
        ({"process_count": None, "memory_used_mib": 513}, {}, FilterReason.FOREIGN_PROCESS),
        ({"process_count": None, "memory_used_mib": 513}, {"share": Share(1, 0)}, FilterReason.FOREIGN_PROCESS),
        ({"process_count": None, "memory_used_mib": 512}, {}, None),
        ({"process_count": None, "memory_used_mib": None}, {}, FilterReason.FOREIGN_PROCESS),
        ({"process_count": 0, "memory_used_mib": 60_000}, {}, None),
        ({"process_count": 0, "memory_used_mib": None}, {}, None),
        ({"process_count": None, "memory_used_mib": 9_000, "held": True}, {}, FilterReason.IN_USE),
        (
            {"process_count": None, "memory_used_mib": 9_000, "sharers": 1, "promised_memory_mib": 1},
            {"share": Share(1, 0)},
            None,
        ),
        ({"process_count": 1, "sharers": 1, "promised_memory_mib": 1}, {"share": Share(1, 0)}, None),
        ({}, {"include_uuids": frozenset({"GPU-other"})}, FilterReason.NOT_INCLUDED),
        ({}, {"exclude_uuids": frozenset({"GPU-0"})}, FilterReason.EXCLUDED),
        ({}, {"models": frozenset({"A100"})}, FilterReason.MODEL),
        ({"compute_capability": "9.0"}, {"min_compute_capability": "10.0"}, FilterReason.COMPUTE_CAPABILITY),
        ({"compute_capability": "10.0"}, {"min_compute_capability": "9.0"}, None),
        ({"compute_capability": None}, {"min_compute_capability": "9.0"}, FilterReason.MEASUREMENT_MISSING),
        ({"memory_used_mib": 40_001}, {"min_free_memory_mib": 40_000}, FilterReason.INSUFFICIENT_FREE_MEMORY),
        ({"memory_used_mib": 40_000}, {"min_free_memory_mib": 40_000}, None),
        ({"memory_used_mib": None}, {"min_free_memory_mib": 1}, FilterReason.MEASUREMENT_MISSING),
        (
            {"sharers": 1, "promised_memory_mib": 70_000},
            {"share": Share(10_001, 0)},
            FilterReason.INSUFFICIENT_FREE_MEMORY,
        ),
        ({"sharers": 1, "promised_memory_mib": 70_000}, {"share": Share(10_000, 0)}, None),
        (
            {"sharers": 1, "in_flight_memory_mib": 70_000},
            {"share": Share(10_001, 0)},
            FilterReason.INSUFFICIENT_FREE_MEMORY,
        ),
        ({"sharers": 1, "promised_compute_percent": 60}, {"share": Share(0, 41)}, FilterReason.COMPUTE),
        (
            {"sharers": 1, "promised_compute_percent": 10, "utilization_percent": 70},
            {"share": Share(0, 31)},
            FilterReason.COMPUTE,
        ),
        ({"sharers": 1, "promised_compute_percent": 60}, {"share": Share(0, 40)}, None),
        ({"utilization_percent": 51}, {"max_utilization_percent": 50}, FilterReason.UTILIZATION),
        ({"utilization_percent": 50}, {"max_utilization_percent": 50}, None),
        ({"utilization_percent": None}, {"max_utilization_percent": 50}, FilterReason.MEASUREMENT_MISSING),
        ({"temperature_celsius": 81}, {"max_temperature_celsius": 80}, FilterReason.TEMPERATURE),
        ({"temperature_celsius": 80}, {"max_temperature_celsius": 80}, None),
        ({"temperature_celsius": None}, {"max_temperature_celsius": 80}, FilterReason.MEASUREMENT_MISSING),
    ],
)
def test_a_device_is_rejected_for_what_it_lacks(
    device: DeviceFields, needs: RequestFields, want: FilterReason | None
) -> None:
    assert reported(make_node("a", [make_device(**device)]), make_request(**needs)) == (want or FilterReason.GANG)


@pytest.mark.parametrize(
    ("node", "pod", "want"),
    [
        ({"unschedulable": True}, {}, FilterReason.NODE_UNSCHEDULABLE),
        ({"not_ready": "kubelet stopped"}, {"tolerations": (Toleration("", "Exists"),)}, FilterReason.NODE_NOT_READY),
        (
            {"unschedulable": True},
            {"tolerations": (Toleration("node.kubernetes.io/unschedulable", "Exists"),)},
            None,
        ),
        ({}, {"node_selector": {"zone": "a"}}, FilterReason.NODE_SELECTOR),
        ({"labels": {"zone": "a"}}, {"node_selector": {"zone": "a"}}, None),
        ({}, {"affinity_terms": ()}, FilterReason.NODE_AFFINITY),
        ({}, {"affinity_terms": (NodeSelectorTerm(),)}, FilterReason.NODE_AFFINITY),
        ({"taints": (Taint("t", "NoSchedule"),)}, {}, FilterReason.TAINT),
        (
            {"taints": (Taint("t", "NoExecute"),)},
            {"tolerations": (Toleration("t", "Exists", effect="NoSchedule"),)},
            FilterReason.TAINT,
        ),
        ({"taints": (Taint("t", "PreferNoSchedule"),)}, {}, None),
        ({"taints": (Taint("t", "NoSchedule", "v"),)}, {"tolerations": (Toleration("t", "Equal", "v"),)}, None),
        (
            {"taints": (Taint("t", "NoSchedule", "v"),)},
            {"tolerations": (Toleration("t", "Equal", "w"),)},
            FilterReason.TAINT,
        ),
        ({"stale_reason": "old"}, {}, FilterReason.TELEMETRY_STALE),
        ({"free_cpu_milli": 999}, {"cpu_milli": 1_000}, FilterReason.INSUFFICIENT_CPU),
        ({"free_cpu_milli": 1_000}, {"cpu_milli": 1_000}, None),
        ({"free_memory_bytes": 0}, {"memory_bytes": 1}, FilterReason.INSUFFICIENT_MEMORY),
        ({"free_pods": 0}, {}, FilterReason.TOO_MANY_PODS),
        ({}, {"extended": {"x.dev/nic": 1}}, FilterReason.INSUFFICIENT_EXTENDED_RESOURCE),
        ({"free_extended": {"x.dev/nic": 1}}, {"extended": {"x.dev/nic": 1}}, None),
    ],
)
def test_a_node_is_rejected_for_what_it_lacks(node: NodeFields, pod: RequestFields, want: FilterReason | None) -> None:
    assert reported(make_node("a", 1, **node), make_request(**pod)) == (want or FilterReason.GANG)


@pytest.mark.parametrize(
    ("expression", "matches"),
    [
        (MatchExpression("zone", "In", ("a", "b")), True),
        (MatchExpression("zone", "In", ("b",)), False),
        (MatchExpression("zone", "NotIn", ("b",)), True),
        (MatchExpression("none", "NotIn", ("b",)), True),
        (MatchExpression("zone", "Exists"), True),
        (MatchExpression("none", "Exists"), False),
        (MatchExpression("none", "DoesNotExist"), True),
        (MatchExpression("gpus", "Gt", ("7",)), True),
        (MatchExpression("gpus", "Gt", ("8",)), False),
        (MatchExpression("gpus", "Lt", ("10",)), True),
        (MatchExpression("zone", "Gt", ("1",)), False),
        (MatchExpression("zone", "Later", ("a",)), False),
    ],
)
def test_node_affinity_reads_as_kubernetes_does(expression: MatchExpression, matches: bool) -> None:
    node = make_node("a", 1, labels={"zone": "a", "gpus": "8"})
    request = make_request(affinity_terms=(NodeSelectorTerm((expression,)),))
    assert reported(node, request) == (FilterReason.GANG if matches else FilterReason.NODE_AFFINITY)


def test_affinity_by_field_names_the_node() -> None:
    term = NodeSelectorTerm(fields=(MatchExpression("metadata.name", "In", ("a",)),))
    assert reported(make_node("a", 1), make_request(affinity_terms=(term,))) is FilterReason.GANG
    assert reported(make_node("b", 1), make_request(affinity_terms=(term,))) is FilterReason.NODE_AFFINITY


def test_excluded_node_is_reported_as_node_backoff() -> None:
    fleet = Fleet.of([make_node("a", 1)])
    codes = rejection_codes(fleet, Query.of(make_request()), frozenset({"a", "gone"}))
    assert codes[0, 0] == CODES[FilterReason.NODE_BACKOFF]


def reported(node: NodeState, request: Request) -> FilterReason:
    """The reason of the node's first device; GANG: it passes everything."""
    fleet = Fleet.of([node])
    codes = rejection_codes(fleet, Query.of(request), frozenset())
    assert np.all(codes[0, : len(node.devices)] == codes[0, 0])
    return REASONS[int(codes[0, 0]) - 1]
