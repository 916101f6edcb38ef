"""A workload as a tree: replicas, their pods with the state of the containers, their GPUs, and conditions."""

from collections.abc import Iterator, Mapping

from gpufleet_api.names import SCHEDULING_GATE
from gpufleet_cli.view.fleet_view import FleetView
from gpufleet_cli.view.gpu_view import GPUView
from gpufleet_cli.view.pod_view import PodView
from gpufleet_cli.view.text_tree import TextTree
from gpufleet_cli.view.workload_view import PlacementView, WorkloadView

_STYLES = {
    "Running": "bold green",
    "Complete": "bold green",
    "Failed": "bold red",
    "Pending": "bold yellow",
    "Suspended": "bold",
}


def workload_tree(view: FleetView, workload: WorkloadView, *, all_conditions: bool = False) -> TextTree:
    """Returns the tree of a workload.

    Args:
        view: The fleet, for pods and GPUs.
        workload: The workload.
        all_conditions: False: only conditions that report something unusual.
    """
    pods = {pod.name: pod for pod in view.pods_of(workload)}
    gpus = view.gpus_by_uuid
    replicas = [_replica(placement, pods, gpus) for placement in workload.placements]
    placed = {placement.pod for placement in workload.placements}
    others = [_pod(pod, (), older=True) for name, pod in pods.items() if name not in placed]
    conditions = list(_conditions(workload, all_conditions=all_conditions))
    return TextTree(headline(workload), (*replicas, *others, *conditions), _STYLES.get(workload.state, "bold"))


def headline(workload: WorkloadView) -> str:
    """Returns `ml/train: Running, 2/2 ready (2 replicas of 4 GPUs, gang, Pack)`."""
    plural = "" if workload.replicas == 1 else "s"
    gpus = f"{workload.devices_per_replica} GPU{'' if workload.devices_per_replica == 1 else 's'}"
    share = f" with {workload.memory_mib:,} MiB of each" if workload.memory_mib else ""
    how = [f"{workload.replicas} replica{plural} of {gpus}{share}", *(["gang"] if workload.gang else [])]
    stale = "" if workload.current else "; the operator has not seen the last change yet"
    ready = f"{workload.ready} ready"
    return f"{workload.full_name}: {workload.state}, {ready} ({', '.join([*how, workload.strategy])}){stale}"


def _replica(placement: PlacementView, pods: Mapping[str, PodView], gpus: Mapping[str, GPUView]) -> TextTree:
    where = f" on {placement.node}" if placement.node else ""
    message = f": {placement.message}" if placement.message else ""
    pod = pods.get(placement.pod)
    devices = tuple(_gpu(gpus.get(uuid), uuid) for uuid in placement.devices)
    children: tuple[TextTree, ...]
    if pod is not None:
        children = (_pod(pod, devices),)
    elif placement.pod:
        children = (TextTree(f"pod {placement.pod}: not found", devices, "red"),)
    else:
        children = devices
    return TextTree(f"replica {placement.replica}: {placement.state}{where}{message}", children)


def _pod(pod: PodView, devices: tuple[TextTree, ...], *, older: bool = False) -> TextTree:
    words = [pod.state]
    if pod.gated:
        words.append(f"waits for {pod.waits_for}" if pod.waits_for else "waits for its reservation")
    others = [gate for gate in pod.gates if gate != SCHEDULING_GATE]
    if others:
        words.append(f"other scheduling gates: {', '.join(others)}")
    if pod.message and not pod.gates:
        words.append(pod.message)
    words += pod.containers
    name = f"pod {pod.name}{' (not a placement of the workload)' if older else ''}"
    bad = pod.state not in ("Running", "Succeeded", "SchedulingGated", "Pending", "ContainerCreating", "Terminating")
    return TextTree(f"{name}: {', '.join(words)}", devices, "red" if bad else "")


def _gpu(gpu: GPUView | None, uuid: str) -> TextTree:
    if gpu is None:
        return TextTree(f"GPU {uuid}")
    return TextTree(f"GPU {gpu.index} {describe(gpu)}", style="" if gpu.healthy and not gpu.not_current else "red")


def describe(gpu: GPUView) -> str:
    """Returns UUID, model, measurements and, if it is not in order, the state of a GPU."""
    words = [gpu.uuid, gpu.model]
    if gpu.utilization_percent is not None:
        words.append(f"{gpu.utilization_percent} % busy")
    if gpu.memory_used_mib is not None:
        total = f" of {gpu.memory_total_mib:,}" if gpu.memory_total_mib is not None else ""
        words.append(f"{gpu.memory_used_mib:,}{total} MiB")
    if gpu.temperature_celsius is not None:
        words.append(f"{gpu.temperature_celsius} °C")
    if gpu.not_current or not gpu.healthy or gpu.cordon is not None:
        words.append(f"{gpu.state}: {gpu.detail}" if gpu.detail else gpu.state)
    return ", ".join(words)


def _conditions(workload: WorkloadView, *, all_conditions: bool) -> Iterator[TextTree]:
    verdict = workload.verdict
    if verdict is None:
        yield TextTree("no condition yet: the operator has not seen the workload; see gpufleet doctor", style="yellow")
    for condition in workload.conditions:
        if all_conditions or condition is verdict or not condition.expected:
            # The message of Ready is also that of the condition that causes it.
            repeated = verdict is not None and condition is not verdict and condition.message == verdict.message
            if all_conditions or not repeated:
                yield TextTree(str(condition), style="" if condition.expected else "yellow")
