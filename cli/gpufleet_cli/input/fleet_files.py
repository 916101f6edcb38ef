"""Builds the engine's fleet from the objects of a cluster, or from what kubectl printed."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gpufleet_api.condition import ConditionStatus
from gpufleet_api.names import API_VERSION, DEMAND_KIND, TELEMETRY_KIND, WORKLOAD_KIND
from gpufleet_api.telemetry.gpu_telemetry import GPUTelemetry
from gpufleet_cli.errors import InputError
from gpufleet_cli.freshness import Renewals
from gpufleet_cli.input.decode import decode, reject
from gpufleet_cli.input.documents import Document
from gpufleet_cli.input.node_files import load_nodes, load_pods
from gpufleet_cli.input.telemetry_age import AgePolicy
from gpufleet_common import timestamps
from gpufleet_common.field_errors import duplicate, invalid
from gpufleet_operator.fleet.engine_input import UNKNOWN_CAPACITY, UNKNOWN_NODE, node_state
from gpufleet_operator.model.objects import BoundPod
from gpufleet_operator.placement import Fleet
from gpufleet_operator.placement.errors import PlacementError


@dataclass(frozen=True, slots=True)
class FleetDocuments:
    """The objects that describe a fleet. Without `nodes`, only the nodes' devices are known.

    `where` names the files or the cluster.
    """

    where: str
    telemetry: Sequence[Document]
    nodes: Sequence[Document] = ()
    pods: Sequence[Document] = ()
    pods_known: bool = False
    """An empty list of pods is a list of all pods."""
    age: AgePolicy = field(default_factory=AgePolicy)
    workloads: Sequence[Document] = ()
    """GPUWorkloads. Only preemption uses them."""
    classes: Sequence[Document] = ()
    """PriorityClasses. Only preemption uses them."""
    demands: Sequence[Document] = ()
    """GPUDemands. Only workloads with learned demand use them."""
    renewals: Renewals = field(default_factory=Renewals)

    @classmethod
    def of(cls, where: str, documents: Iterable[Document], age: AgePolicy) -> "FleetDocuments":
        """Sorts saved objects by kind; other kinds are ignored."""
        by_kind: dict[tuple[str, str], list[Document]] = {}
        for document in documents:
            by_kind.setdefault((document.api_version, document.kind), []).append(document)
        pods = by_kind.get(("v1", "Pod"), [])
        telemetry = by_kind.get((API_VERSION, TELEMETRY_KIND), [])
        workloads = by_kind.get((API_VERSION, WORKLOAD_KIND), ())
        classes = by_kind.get(("scheduling.k8s.io/v1", "PriorityClass"), ())
        nodes, demands = by_kind.get(("v1", "Node"), ()), by_kind.get((API_VERSION, DEMAND_KIND), ())
        renewals = Renewals.of(one.body for one in by_kind.get(("coordination.k8s.io/v1", "Lease"), ()))
        return cls(where, telemetry, nodes, pods, bool(pods), age, workloads, classes, demands, renewals)


@dataclass(frozen=True, slots=True)
class LoadedFleet:
    """A fleet, and whether labels, taints and free capacity of its nodes are known."""

    fleet: Fleet
    nodes_known: bool
    telemetry: Mapping[str, GPUTelemetry]
    """By name, of the nodes in the fleet."""
    pods: tuple[BoundPod, ...] = ()
    """The pods on the nodes; empty when they are not known."""
    notes: tuple[str, ...] = ()


def load(objects: FleetDocuments, extended: Collection[str] = ()) -> LoadedFleet:
    """Builds the fleet.

    Args:
        objects: The objects.
        extended: Extended resources that are requested besides GPUs. Nodes of which nothing is known have enough.

    Raises:
        InputError: An object cannot be used, a node or device occurs twice, or there is no node.
    """
    notes: list[str] = []
    pods = load_pods(objects.pods) if objects.nodes else ()
    known = load_nodes(objects.nodes, pods) if objects.nodes else None
    unknown = replace(UNKNOWN_NODE, free_extended=dict.fromkeys(extended, UNKNOWN_CAPACITY))
    fleet = Fleet()
    where: dict[str, str] = {}
    used: dict[str, GPUTelemetry] = {}
    for document in objects.telemetry:
        telemetry = _telemetry(document)
        if document.name in where:
            raise InputError(f"{document}: {duplicate('metadata.name', document.name)} (see {where[document.name]})")
        where[document.name] = document.where
        if known is not None and document.name not in known:
            notes.append(f"node {document.name} left out: it has no Node")
            continue
        used[document.name] = telemetry
        try:
            fleet.put(
                node_state(
                    telemetry,
                    unknown if known is None else known[document.name],
                    age_seconds=objects.age.age_seconds(document, telemetry, objects.renewals),
                    stale_after_seconds=objects.age.stale_after_seconds,
                    stale_reason=_stale_reason(telemetry),
                )
            )
        except PlacementError as error:
            raise InputError(f"{document}: {error}") from error
    if not where:
        raise InputError(f"{objects.where}: no {TELEMETRY_KIND} found")
    if not used:
        raise InputError(f"{objects.where}: none of the Nodes has a {TELEMETRY_KIND} (these have: {', '.join(where)})")
    return LoadedFleet(fleet, known is not None, used, pods, (*notes, *objects.age.notes()))


def unchecked(objects: FleetDocuments) -> Iterator[str]:
    """Yields a note on what is not checked because objects are missing."""
    if not objects.nodes:
        yield "CPU, memory, labels and taints of the nodes not checked: no Nodes known"
    elif not objects.pods_known:
        yield "everything allocatable on a node counts as free: no Pods known"


def _stale_reason(telemetry: GPUTelemetry) -> str | None:
    """Returns why the operator does not use the telemetry; None: it does, or has not said so."""
    conditions = telemetry.status.conditions if telemetry.status else []
    found = (c for c in conditions if c.type == "Fresh" and c.status is ConditionStatus.FALSE)
    return next((condition.message or condition.reason for condition in found), None)


def _telemetry(document: Document) -> GPUTelemetry:
    telemetry = decode(GPUTelemetry, document)
    reject(document, _problems(telemetry))
    return telemetry


def _problems(telemetry: GPUTelemetry) -> Iterator[str]:
    """Yields what the engine would silently count as a device without samples."""
    status = telemetry.status
    if status is None:
        return
    yield from _time("status.observedAt", status.observed_at)
    yield from _time("status.sampleTime", status.sample_time)
    seen = Counter(device.uuid for device in status.devices)
    for index, device in enumerate(status.devices):
        at = f"status.devices[{index}]"
        yield from _time(f"{at}.sampleTime", device.sample_time)
        used, total = device.memory_used_mib, device.memory_total_mib
        if used is not None and total is not None and used > total:
            yield invalid(f"{at}.memoryUsedMiB", used, f"must be less than or equal to memoryTotalMiB, {total}")
        if seen[device.uuid] > 1:
            yield duplicate(f"{at}.uuid", device.uuid)


def _time(path: str, text: str | None) -> Iterator[str]:
    if text is None:
        return
    try:
        timestamps.parse(text)
    except ValueError:
        yield invalid(path, text, "must be an RFC 3339 time, such as 2026-01-02T03:04:05Z")
