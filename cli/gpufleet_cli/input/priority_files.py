"""Reads the input of preemption: the pods that hold devices, and the priority of new pods."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from gpufleet_cli.errors import InputError
from gpufleet_cli.input.decode import convert
from gpufleet_cli.input.documents import Document
from gpufleet_cli.input.fleet_files import FleetDocuments, LoadedFleet
from gpufleet_cli.input.manifests import Manifest
from gpufleet_common.field_errors import invalid
from gpufleet_operator.cache import decode, decode_pod
from gpufleet_operator.fleet.holders import holders_by_node
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.ledger.move_target import origin_of
from gpufleet_operator.model.lenient_json import Json, as_map, text
from gpufleet_operator.model.objects import Reservation
from gpufleet_operator.model.snapshot import Snapshot

T = TypeVar("T")

_SYSTEM_CLASSES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}


@dataclass(frozen=True, slots=True)
class PriorityClasses:
    """The PriorityClasses of a cluster."""

    values: Mapping[str, int]
    """By name."""
    never: frozenset[str]
    """Names of those with `preemptionPolicy: Never`."""
    default: str = ""
    """Name of the one with `globalDefault`."""

    @classmethod
    def of(cls, documents: Iterable[Document]) -> "PriorityClasses":
        """Decodes them. Raises InputError for a value that is not an integer."""
        found = {document.name: document for document in documents}
        return cls(
            {**_SYSTEM_CLASSES, **{name: _value(document) for name, document in found.items()}},
            frozenset(name for name, one in found.items() if one.body.get("preemptionPolicy") == "Never"),
            next((name for name, one in found.items() if one.body.get("globalDefault")), ""),
        )

    def apply(self, manifest: Manifest) -> Manifest:
        """Returns a workload whose request has the priority of its pods, as admission resolves it."""
        name = str(manifest.model.spec.pod_spec.get("priorityClassName") or self.default)
        request = replace(manifest.request, priority=self.values.get(name, 0), may_preempt=name not in self.never)
        return replace(manifest, request=request)

    def unknown(self, manifests: Iterable[Manifest]) -> list[str]:
        """Returns a note for each workload with an unknown PriorityClass."""
        names = {one.name: one.model.spec.pod_spec.get("priorityClassName") for one in manifests}
        return [
            f"{workload}: PriorityClass {name} not found; simulated with priority 0"
            for workload, name in names.items()
            if name and name not in self.values
        ]


def add_holders(loaded: LoadedFleet, objects: FleetDocuments, now: datetime) -> None:
    """Adds the pods that hold devices to the nodes of a fleet, as the operator does.

    Raises:
        InputError: Such a pod, or its GPUWorkload, cannot be used.
    """
    reservations = [
        Reservation(node, assignment)
        for node, telemetry in loaded.telemetry.items()
        for assignment in telemetry.spec.assignments
        if origin_of(assignment) is None  # else devices for a pod to move to, which no pod holds
    ]
    pods = _by_uid(objects.pods, {one.assignment.pod_uid for one in reservations}, decode_pod.pod)
    owners = {one.assignment.workload_uid for one in reservations}
    workloads = _by_uid(objects.workloads, owners, decode.workload)
    active: dict[str, Reservation] = {}
    ending: list[Reservation] = []
    for reservation in reservations:
        pod = pods.get(reservation.assignment.pod_uid)
        if pod is None or pod.terminal:
            ending.append(reservation)
        else:
            active[pod.uid] = reservation
    snapshot = Snapshot(now=now, name_seed="", templates={}, pods=pods, workloads=workloads)
    for node, holders in holders_by_node(snapshot, Ledger(active, tuple(ending))).items():
        state = loaded.fleet.nodes[node]
        loaded.fleet.put(replace(state, holders=tuple(holders)))


def _by_uid(documents: Iterable[Document], uids: Collection[str], function: Callable[[Json], T]) -> dict[str, T]:
    """Decodes the objects that have one of these UIDs."""
    found = ((text(as_map(one.body.get("metadata")).get("uid")), one) for one in documents)
    return {uid: convert(document, function) for uid, document in found if uid in uids}


def _value(document: Document) -> int:
    value = document.body.get("value") or 0
    if not isinstance(value, int):
        raise InputError(f"{document}: {invalid('value', value, 'must be an integer')}")
    return value
