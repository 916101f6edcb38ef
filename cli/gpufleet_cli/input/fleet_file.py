"""`--fleet`, `--nodes`, `--pods`: what kubectl printed -> the engine's fleet, and what it leaves unchecked."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpufleet_api.names import API_VERSION, TELEMETRY_KIND
from gpufleet_api.telemetry import GPUTelemetry
from gpufleet_cli.errors import InputError
from gpufleet_cli.input.decode import parse, refuse
from gpufleet_cli.input.documents import Document, read
from gpufleet_cli.input.node_files import node_facts
from gpufleet_cli.input.sample_ages import Ages
from gpufleet_common import timestamps
from gpufleet_operator.fleet.engine_input import UNKNOWN_CAPACITY, NodeInfo, node_state
from gpufleet_operator.placement import Fleet
from gpufleet_operator.placement.errors import PlacementError

_MOST_MIB = 2**31 - 1
"""The engine's limit; the API's is higher."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The files that describe a fleet. Without `nodes`, nothing but the devices is known."""

    fleet: Sequence[Path]
    nodes: Sequence[Path]
    pods: Sequence[Path]
    ages: Ages


@dataclass(frozen=True, slots=True)
class Loaded:
    """The fleet, whether labels, taints and room of its nodes are known, and what to tell the user."""

    fleet: Fleet
    nodes_known: bool
    telemetry: Mapping[str, GPUTelemetry]
    """By node name, of the nodes that take part."""
    notes: tuple[str, ...] = ()


def load(sources: Sources, extended: Collection[str] = ()) -> Loaded:
    """Read a fleet.

    Args:
        sources: the files.
        extended: other extended resources that are asked for; unknown nodes have as much of them as it takes.

    Raises:
        InputError: a file can't be used, a node or device stands twice, or there is no node.
    """
    notes: list[str] = []
    facts = node_facts(sources.nodes, sources.pods) if sources.nodes else None
    unknown = NodeInfo(free_extended=dict.fromkeys(extended, UNKNOWN_CAPACITY))
    fleet = Fleet()
    where: dict[str, str] = {}
    used: dict[str, GPUTelemetry] = {}
    for document in read(sources.fleet):
        telemetry = _telemetry(document)
        if document.name in where:
            raise InputError(f"{document}: metadata.name: stands twice, also in {where[document.name]}")
        where[document.name] = document.where
        if facts is not None and document.name not in facts:
            notes.append(f"{document.name} is in no --nodes file: left out, as the operator does without its Node")
            continue
        used[document.name] = telemetry
        try:
            fleet.put(
                node_state(
                    telemetry,
                    unknown if facts is None else facts[document.name],
                    age_seconds=sources.ages.of(document, telemetry),
                    stale_after_seconds=sources.ages.limit,
                )
            )
        except PlacementError as error:
            raise InputError(f"{document}: {error}") from error
    if not where:
        raise InputError(f"{', '.join(map(str, sources.fleet))}: there is no {TELEMETRY_KIND}")
    if not used:
        raise InputError(f"{', '.join(map(str, sources.nodes))}: has none of the fleet's nodes ({', '.join(where)})")
    return Loaded(fleet, facts is not None, used, (*notes, *sources.ages.notes()))


def unchecked(sources: Sources) -> Iterator[str]:
    """What to tell the user of the nodes' room.

    Raises:
        InputError: pods are given, and no nodes.
    """
    if not sources.nodes and sources.pods:
        raise InputError("--pods needs --nodes: what pods take is counted against their nodes' allocatable")
    if not sources.nodes:
        yield "room for CPU and memory, labels and taints of the nodes aren't checked: no --nodes file"
    elif not sources.pods:
        yield "all that is allocatable on a node counts as free: no --pods file"


def _telemetry(document: Document) -> GPUTelemetry:
    if (document.kind, document.api_version) != (TELEMETRY_KIND, API_VERSION):
        got = f"{document.kind} of {document.api_version}"
        raise InputError(f"{document}: a fleet file holds {TELEMETRY_KIND} of {API_VERSION} (got {got})")
    telemetry = parse(GPUTelemetry, document)
    refuse(document, _problems(telemetry))
    return telemetry


def _problems(telemetry: GPUTelemetry) -> Iterator[str]:
    """What the engine would take for a device that was never sampled, and a reader of the file for an error."""
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
        if (total or 0) > _MOST_MIB:
            yield f"{at}.memoryTotalMiB: must be at most {_MOST_MIB} (got {total})"
        if used is not None and total is not None and used > total:
            yield f"{at}.memoryUsedMiB: is more than memoryTotalMiB, {total} (got {used})"
        if seen[device.uuid] > 1:
            yield f'{at}.uuid: stands {seen[device.uuid]} times (got "{device.uuid}")'


def _time(path: str, text: str | None) -> Iterator[str]:
    if text is None:
        return
    try:
        timestamps.parse(text)
    except ValueError:
        yield f'{path}: must be a time such as 2026-01-02T03:04:05Z (got "{text}")'
