"""Checks of pods and reservations that belong to nothing."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from gpufleet_cli.cluster.kinds import TELEMETRY
from gpufleet_cli.doctor.facts import ClusterFacts, name_of
from gpufleet_cli.doctor.finding import Diagnosed
from gpufleet_cli.freshness import time_of
from gpufleet_operator.model.lenient_json import Json, as_list, as_map, maps, text

_SETTLED_SECONDS: Final = 120
"""A reservation outlives its pod until the agent reports that the devices are free."""


def gated_pods(facts: ClusterFacts) -> Iterator[Diagnosed]:
    """Pods with the scheduling gate and without a GPUWorkload: nothing removes the gate."""
    uids = {one.uid for one in facts.view.workloads.values()}
    for pod in facts.view.pods.values():
        if not pod.gated or pod.deleting or pod.owner_uid in uids:
            continue
        if pod.workload and (pod.namespace, pod.workload) in facts.view.workloads:
            continue
        named = f'GPUWorkload "{pod.workload}" does not exist' if pod.workload else "it belongs to no GPUWorkload"
        cause = f"the gate gpufleet.dev/assignment holds the pod, and {named}"
        cure = f"kubectl delete pod --namespace={pod.namespace} {pod.name}, or create the GPUWorkload"
        yield Diagnosed("GatedPodWithoutWorkload", f"pod/{pod.namespace}/{pod.name}", cause, cure)


def reservations(facts: ClusterFacts) -> Iterator[Diagnosed]:
    """Reservations whose pod does not exist, and whose devices no container holds."""
    uids = {pod.uid for pod in facts.view.pods.values()}
    for one in facts.lists.of(TELEMETRY):
        held = set(_held(one))
        for entry in maps(as_map(one.get("spec")).get("assignments")):
            if text(entry.get("podUID")) in uids or entry.get("keepForSuccessor") or _is_recent(entry, facts.now):
                continue
            if held.intersection(map(text, as_list(entry.get("devices")))):
                continue
            pod = f"{text(entry.get('namespace'))}/{text(entry.get('pod'))}"
            cause = f"GPUs are reserved for pod {pod}, which does not exist, and no container holds them"
            cure = "the operator removes such reservations: check that it is ready and may write, kubectl logs"
            yield Diagnosed("ReservationWithoutPod", f"gputelemetry/{name_of(one)}", cause, cure)


def _is_recent(entry: Json, now: datetime | None) -> bool:
    decided = time_of(entry.get("decidedAt"))
    return decided is not None and now is not None and (now - decided).total_seconds() < _SETTLED_SECONDS


def _held(telemetry: Json) -> Iterator[str]:
    for device in maps(as_map(telemetry.get("status")).get("devices")):
        if as_list(device.get("allocatedTo")):
            yield text(device.get("uuid"))
