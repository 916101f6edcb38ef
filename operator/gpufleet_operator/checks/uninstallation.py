"""Finds what an uninstallation would leave behind: unfinished workloads, and pods that wait forever."""

from collections import Counter
from collections.abc import Iterable

from gpufleet_api.names import SCHEDULING_GATE, WORKLOAD_LABEL
from gpufleet_operator.cache import decode_owner
from gpufleet_operator.checks.installation import condition
from gpufleet_operator.model.lenient_json import Json, as_map, maps, text

_ENDED = ("Succeeded", "Failed")


def left_behind(workloads: Iterable[Json], pods: Iterable[Json]) -> list[str]:
    """Returns a line for each workload that is not finished or suspended, and for other pods that wait.

    Args:
        workloads: All GPUWorkloads.
        pods: Pods with the label of a workload.
    """
    running, waiting = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for pod in pods:
        if text(as_map(pod.get("status")).get("phase")) in _ENDED:
            continue
        owner = _name(pod, as_map(as_map(pod.get("metadata")).get("labels")).get(WORKLOAD_LABEL))
        (waiting if _is_gated(pod) else running)[owner] += 1
    active = {_name(one, as_map(one.get("metadata")).get("name")) for one in workloads if _is_active(one)}
    lines = [
        f"{'/'.join(key)}: {_pods(running[key], 'runs', 'run')}, {_pods(waiting[key], 'waits', 'wait')}"
        for key in sorted(active)
    ]
    orphans = sorted(waiting.keys() - active)
    return lines + [f"{'/'.join(key)}: not active, {_pods(waiting[key], 'waits', 'wait')}" for key in orphans]


def is_temporary(workloads: Iterable[Json], pods: Iterable[Json]) -> bool:
    """Returns whether everything that `left_behind` lists is being deleted.

    The garbage collector deletes the pods of a GPUWorkload after it, and the operator those of one that has ended or is
    suspended.
    """
    return all(_is_deleting(one) for one in workloads if _is_active(one)) and all(
        _is_deleting(pod) or _is_of_workload(pod) for pod in pods if _is_gated(pod)
    )


def _is_deleting(body: Json) -> bool:
    return "deletionTimestamp" in as_map(body.get("metadata"))


def _is_of_workload(pod: Json) -> bool:
    return bool(decode_owner.workload_uid(maps(as_map(pod.get("metadata")).get("ownerReferences"))))


def _name(body: Json, name: object) -> tuple[str, str]:
    return text(as_map(body.get("metadata")).get("namespace")), text(name)


def _is_gated(pod: Json) -> bool:
    gates = maps(as_map(pod.get("spec")).get("schedulingGates"))
    return any(gate.get("name") == SCHEDULING_GATE for gate in gates)


def _is_active(workload: Json) -> bool:
    if as_map(workload.get("spec")).get("suspend") is True:
        return False
    return not any(condition(workload, kind).get("status") == "True" for kind in ("Complete", "Failed"))


def _pods(count: int, one: str, many: str) -> str:
    return f"{count} pod{'' if count == 1 else 's'} {one if count == 1 else many}"
