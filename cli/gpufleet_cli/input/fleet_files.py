"""`--fleet`, `--nodes`, `--pods`: builds the engine's fleet from what kubectl printed."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpufleet_api.names import API_VERSION, TELEMETRY_KIND
from gpufleet_api.telemetry import GPUTelemetry
from gpufleet_cli.errors import InputError
from gpufleet_cli.input.decode import decode, reject
from gpufleet_cli.input.documents import Document, read
from gpufleet_cli.input.node_files import load_nodes, load_pods
from gpufleet_cli.input.telemetry_age import AgePolicy
from gpufleet_common import timestamps
from gpufleet_common.field_errors import duplicate, invalid
from gpufleet_operator.fleet.engine_input import UNKNOWN_CAPACITY, NodeInfo, node_state
from gpufleet_operator.model.objects import BoundPod
from gpufleet_operator.placement import Fleet
from gpufleet_operator.placement.errors import PlacementError


@dataclass(frozen=True, slots=True)
class FleetFiles:
    """The files that describe a fleet. Without `nodes`, only the nodes' devices are known."""

    fleet: Sequence[Path]
    nodes: Sequence[Path]
    pods: Sequence[Path]
    age: AgePolicy


@dataclass(frozen=True, slots=True)
class LoadedFleet:
    """A fleet, and whether labels, taints and free capacity of its nodes are known."""

    fleet: Fleet
    nodes_known: bool
    telemetry: Mapping[str, GPUTelemetry]
    """By name, of the nodes in the fleet."""
    pods: tuple[BoundPod, ...] = ()
    """The pods on the nodes; empty without files of pods."""
    notes: tuple[str, ...] = ()


def load(files: FleetFiles, extended: Collection[str] = ()) -> LoadedFleet:
    """Builds the fleet.

    Args:
        files: The files.
        extended: Extended resources that are requested besides GPUs. Nodes of which nothing is known have enough.

    Raises:
        InputError: A file cannot be used, contains a node or device twice, or there is no node.
    """
    notes: list[str] = []
    pods = load_pods(files.pods) if files.nodes else ()
    known = load_nodes(files.nodes, pods) if files.nodes else None
    unknown = NodeInfo(free_extended=dict.fromkeys(extended, UNKNOWN_CAPACITY))
    fleet = Fleet()
    where: dict[str, str] = {}
    used: dict[str, GPUTelemetry] = {}
    for document in read(files.fleet):
        telemetry = _telemetry(document)
        if document.name in where:
            raise InputError(f"{document}: {duplicate('metadata.name', document.name)} (see {where[document.name]})")
        where[document.name] = document.where
        if known is not None and document.name not in known:
            notes.append(f"node {document.name} left out: not in the --nodes files")
            continue
        used[document.name] = telemetry
        try:
            fleet.put(
                node_state(
                    telemetry,
                    unknown if known is None else known[document.name],
                    age_seconds=files.age.age_seconds(document, telemetry),
                    stale_after_seconds=files.age.stale_after_seconds,
                )
            )
        except PlacementError as error:
            raise InputError(f"{document}: {error}") from error
    if not where:
        raise InputError(f"{', '.join(map(str, files.fleet))}: no {TELEMETRY_KIND} found")
    if not used:
        raise InputError(f"{', '.join(map(str, files.nodes))}: none of the fleet's nodes found ({', '.join(where)})")
    return LoadedFleet(fleet, known is not None, used, pods, (*notes, *files.age.notes()))


def unchecked(files: FleetFiles) -> Iterator[str]:
    """Yields a note on what is not checked because files are missing.

    Raises:
        InputError: Pods are given without nodes.
    """
    if not files.nodes and files.pods:
        raise InputError("--pods requires --nodes: the pods' requests are subtracted from the nodes' allocatable")
    if not files.nodes:
        yield "CPU, memory, labels and taints of the nodes not checked: no --nodes files"
    elif not files.pods:
        yield "everything allocatable on a node counts as free: no --pods files"


def _telemetry(document: Document) -> GPUTelemetry:
    if (document.kind, document.api_version) != (TELEMETRY_KIND, API_VERSION):
        got = f"{document.api_version} {document.kind}"
        raise InputError(f"{document}: must be a {API_VERSION} {TELEMETRY_KIND}, not {got}")
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
