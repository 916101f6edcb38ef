"""Why a workload or a pod waits, and why it has the devices that it has, as paragraphs of text."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC

from gpufleet_api.names import FORBIDDEN_RESOURCES, NOT_MOVED, RESOURCE_PREFIX
from gpufleet_cli.view.event_view import EventView
from gpufleet_cli.view.fleet_view import FleetView
from gpufleet_cli.view.gpu_view import GPUView
from gpufleet_cli.view.pod_view import PodView
from gpufleet_cli.view.text_tree import TextTree
from gpufleet_cli.view.workload_tree import describe, headline
from gpufleet_cli.view.workload_view import ConditionView, PlacementView, WorkloadView
from gpufleet_operator.model.lenient_json import Json, as_map, maps, number, text

_MAX_EVENTS = 8
_GPU_PREFIXES = (RESOURCE_PREFIX, *(pattern.rstrip("*") for pattern in FORBIDDEN_RESOURCES))
_TERMS = (
    ("memory", "free memory"),
    ("utilization", "unused compute"),
    ("temperature", "temperature"),
    ("power", "power"),
)


@dataclass(frozen=True, slots=True)
class WaitingFact:
    """A reason in words, with details below it."""

    text: str
    details: tuple[str, ...] = ()


def explain_workload(
    view: FleetView, workload: WorkloadView, events: Sequence[EventView], replica: int | None = None
) -> TextTree:
    """Returns why replicas wait, and why the others have their devices.

    Args:
        view: The fleet.
        workload: The workload.
        events: Events of the workload and its pods, oldest first.
        replica: Only this replica; None for all.
    """
    gpus = view.gpus_by_uuid
    parts: list[TextTree] = []
    if not workload.current:
        parts.append(TextTree("the operator has not seen the last change of the workload yet: see gpufleet doctor"))
    waits = list(waiting_facts(workload))
    if waits:
        facts = tuple(TextTree(fact.text, tuple(map(TextTree, fact.details))) for fact in waits)
        failed = workload.state == "Failed"
        parts.append(
            TextTree("Why it failed" if failed else "Why it waits", facts, "bold red" if failed else "bold yellow")
        )
    placed = [p for p in workload.placements if p.devices and replica in (None, p.replica)]
    if placed:
        chosen = [_chosen(p, gpus, workload.memory_mib) for p in placed]
        parts.append(TextTree("Why these devices", (*chosen, *_not_moved(workload)), "bold"))
    if events:
        parts.append(TextTree("Events", tuple(map(_event, events[-_MAX_EVENTS:])), "bold"))
    return TextTree(headline(workload), tuple(parts), "bold")


def waiting_facts(workload: WorkloadView) -> Iterator[WaitingFact]:
    """Yields why the workload is not Ready, the summarizing condition first."""
    verdict = workload.verdict
    if verdict is None:
        yield WaitingFact("the operator has not seen the workload yet: see gpufleet doctor")
        return
    if verdict.type == "Ready" and verdict.status == "True":
        return
    explanation = workload.explanation
    yield WaitingFact(str(verdict), tuple(_explanation_details(explanation, verdict)))
    for condition in workload.conditions:
        if condition is not verdict and not condition.expected and condition.message != verdict.message:
            yield WaitingFact(str(condition))
    for rejection in maps(explanation.get("nodeRejections")):
        replica, node, by = number(rejection.get("replica")), text(rejection.get("node")), text(rejection.get("by"))
        yield WaitingFact(f"{by} rejected replica {replica} on {node}: {text(rejection.get('message'))}")


def explain_pod(view: FleetView, pod: PodView, events: Sequence[EventView], other: Iterable[GPUView] = ()) -> TextTree:
    """Returns what a pod waits for, and its devices; for a pod of a workload, see `explain_workload` as well.

    Args:
        view: The fleet.
        pod: The pod.
        events: Events of the pod, oldest first.
        other: GPUs that it uses.
    """
    facts = [TextTree(words) for words in _pod_facts(view, pod)]
    held = tuple(TextTree(f"{gpu.node}/{gpu.index} {describe(gpu)}") for gpu in other)
    if held:
        facts.append(TextTree("Devices", held, "bold"))
    if events:
        facts.append(TextTree("Events", tuple(map(_event, events[-_MAX_EVENTS:])), "bold"))
    where = f" on {pod.node}" if pod.node else ""
    return TextTree(f"pod {pod.namespace}/{pod.name}: {pod.state}{where}", tuple(facts), "bold")


def _pod_facts(view: FleetView, pod: PodView) -> Iterator[str]:
    workload = view.workloads.get((pod.namespace, pod.workload)) if pod.workload else None
    if pod.gated and workload is None:
        named = f'GPUWorkload "{pod.workload}" does not exist' if pod.workload else "it names no GPUWorkload"
        cure = "delete the pod, or create the workload"
        yield f"held by gpufleet's scheduling gate, which nothing removes: {named}; {cure}"
    elif pod.gated:
        waits = f"waits for {pod.waits_for}" if pod.waits_for else "waits until its devices are reserved"
        yield f"held by gpufleet's scheduling gate: {waits}"
    others = [gate for gate in pod.gates if not gate.startswith(RESOURCE_PREFIX)]
    if others:
        yield f"held by scheduling gates of other controllers: {', '.join(others)}"
    if pod.message and not pod.gates:
        yield pod.message
    yield from pod.containers
    requested = [f"{name}={amount}" for name, amount in pod.resources if name.startswith(_GPU_PREFIXES)]
    if workload is None and not pod.gated:
        asks = f"it requests {', '.join(requested)}, and a device plugin picks" if requested else "it requests no GPU"
        yield f"no GPUWorkload controls it: {asks}{' its devices' if requested else ''}"


def _explanation_details(explanation: Json, verdict: ConditionView) -> Iterator[str]:
    message = text(explanation.get("message"))
    if message and message not in verdict.message:
        yield message
    for rejection in maps(explanation.get("ineligibleDevices")):
        devices, nodes = number(rejection.get("devices")), number(rejection.get("nodes"))
        gpus_, nodes_ = "GPU" if devices == 1 else "GPUs", "node" if nodes == 1 else "nodes"
        yield f"{devices:,} {gpus_} on {nodes:,} {nodes_}: {text(rejection.get('reason'))}"
    near = as_map(explanation.get("nearestMiss"))
    if near:
        device = f"/{text(near.get('device'))}" if near.get("device") else ""
        yield f"closest is {text(near.get('node'))}{device}: {text(near.get('message'))}"


def _not_moved(workload: WorkloadView) -> Iterator[TextTree]:
    """Yields why the pods are never moved from full devices, if the workload asks for it."""
    placed = workload.condition("Placed")
    for part in placed.message.split("; ") if placed is not None else ():
        if part.startswith(NOT_MOVED):
            yield TextTree(part)


def _chosen(placement: PlacementView, gpus: Mapping[str, GPUView], promised_mib: int | None) -> TextTree:
    score = dict(placement.score)
    terms = [f"{words} {score[name]:.3f}" for name, words in _TERMS if name in score]
    why = f"score {score['total']:.3f} of 1 ({', '.join(terms)})" if "total" in score else "its score was not recorded"
    devices = []
    if placement.demand_mib is not None:
        learned = f"{placement.demand_mib:,} MiB learned from {placement.demand_runs} runs"
        promised = f", promised {promised_mib:,} MiB" if promised_mib is not None else ""
        devices.append(TextTree(f"counted with {learned}{promised}"))
    for uuid in placement.devices:
        gpu = gpus.get(uuid)
        devices.append(TextTree(f"GPU {uuid}" if gpu is None else f"GPU {gpu.index} {describe(gpu)}"))
    return TextTree(f"replica {placement.replica} on {placement.node}: {why}", tuple(devices))


def _event(event: EventView) -> TextTree:
    at = f"{event.at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ} " if event.at else ""
    times = f" (x{event.count})" if event.count > 1 else ""
    about = "" if event.kind == "GPUWorkload" else f"{event.kind.lower()} {event.name}: "
    return TextTree(
        f"{at}{about}{event.reason}{times}: {event.message}", style="yellow" if event.type == "Warning" else ""
    )
