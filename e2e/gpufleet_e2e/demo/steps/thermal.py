"""The thermal step: the best GPU becomes hot, and the next workload gets another one, with a reason.

The same manifest is applied before and after. Its first pick shows which GPU is best, so that the demo needs no ranking
of its own.
"""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from gpufleet_e2e.demo import tables
from gpufleet_e2e.demo.context import WORKLOAD_NAMESPACE, DemoContext, JsonObject, manifest
from gpufleet_e2e.demo.driver import SimulatedDriver
from gpufleet_e2e.demo.steps import placement
from gpufleet_e2e.proof import ReplicaEvidence, WaitTimeoutError, objects

HOT_CELSIUS = 95
PROBE = Path(__file__).with_name("next.yaml")
PINNED_NAME = "hot-gpu-only"


@dataclass(frozen=True, slots=True)
class HotGpu:
    """A GPU that reports `HOT_CELSIUS`, and its temperature before."""

    node: str
    uuid: str
    cool_celsius: int


def delete_and_free(context: DemoContext, name: str) -> None:
    """Deletes a workload and checks that its devices are free."""
    before = _free_gpus(context)
    context.terminal.say(
        "Kubernetes' garbage collector deletes the pods. It discovers a new CRD within 30 s, so this may take as long."
    )
    context.terminal.command(f"kubectl delete --namespace={WORKLOAD_NAMESPACE} gpuworkload {name}")
    context.delete(name)
    after = _free_gpus(context)
    claim = f"its devices are free: {after} GPUs, {before} before"
    context.check(holds=after > before, subject=name, claim=claim)


def avoid_hot_gpu(context: DemoContext, driver: SimulatedDriver) -> None:
    """Makes the best GPU hot, and shows that workloads avoid it and why one that requires it waits."""
    terminal, probe = context.terminal, manifest(PROBE)
    limit = probe["spec"]["requirements"]["maxTemperatureCelsius"]
    terminal.say(f"Which GPU is the best? `next` requests one below {limit} C, and is deleted after the pick.")
    before = _pick(context, probe)
    if before is None:
        return
    context.delete(probe["metadata"]["name"])
    terminal.say(f"The best is {_where(context, before)}. The simulated driver now reports {HOT_CELSIUS} C for it.")
    hot = _make_hot(context, driver, before)
    placement.show_fleet(context, mark=hot.uuid)
    _avoid(context, probe, before, hot)
    _require_hot_gpu(context, driver, probe, hot)


def _make_hot(context: DemoContext, driver: SimulatedDriver, pick: ReplicaEvidence) -> HotGpu:
    """Makes the picked GPU hot and waits until telemetry shows it."""
    hot = HotGpu(pick.node, pick.picked[0], driver.temperature(pick.node, pick.picked[0]))
    context.terminal.command(driver.command(hot.node, hot.uuid, HOT_CELSIUS))
    _set_temperature(context, driver, hot, HOT_CELSIUS)
    return hot


def _set_temperature(context: DemoContext, driver: SimulatedDriver, hot: HotGpu, celsius: int) -> None:
    """Sets the GPU's temperature and waits until telemetry shows it."""
    begin = monotonic()
    driver.set_temperature(hot.node, hot.uuid, celsius)
    context.collector.wait_for_telemetry(
        hot.node, lambda found: temperature(found, hot.uuid) == celsius, timeout_seconds=context.timeout_seconds
    )
    context.terminal.progress(f"GPUTelemetry {hot.node} shows {celsius} C after {monotonic() - begin:.1f} s")


def _avoid(context: DemoContext, probe: JsonObject, before: ReplicaEvidence, hot: HotGpu) -> None:
    """Applies the same manifest again: it must get another GPU."""
    after = _pick(context, probe)
    if after is None:
        return
    name = probe["metadata"]["name"]
    context.terminal.say("The reason, from the status: a score from 0 (worst) to 1000 (best), and its terms.")
    context.terminal.show(tables.score_table([("before", before), ("now", after)], context.fleet()))
    context.check(
        holds=hot.uuid not in after.picked,
        subject=name,
        claim=f"the same manifest now gets {_where(context, after)}, not the hot GPU",
    )
    placement.verify(context, name)


def _require_hot_gpu(context: DemoContext, driver: SimulatedDriver, probe: JsonObject, hot: HotGpu) -> None:
    """Requires the hot GPU: the workload waits and explains why, and is placed once the GPU is cool."""
    terminal, pinned = context.terminal, deepcopy(probe)
    pinned["metadata"]["name"] = PINNED_NAME
    pinned["spec"]["requirements"]["includeUUIDs"] = [hot.uuid]
    terminal.say(f"`{PINNED_NAME}` requires the hot GPU by its UUID, with the same limit.")
    context.apply(pinned)
    try:
        waiting = context.collector.wait_for_workload(
            WORKLOAD_NAMESPACE, PINNED_NAME, explained, timeout_seconds=context.timeout_seconds
        )
    except WaitTimeoutError as error:
        context.check(holds=False, subject=PINNED_NAME, claim="it waits and explains why", otherwise=str(error))
        return
    explanation = waiting["status"]["explanation"]
    terminal.quote(explanation["message"])
    reasons = [one["reason"] for one in explanation.get("ineligibleDevices", [])]
    context.check(
        holds="TemperatureTooHigh" in reasons,
        subject=PINNED_NAME,
        claim="it waits, and the temperature is the reason",
        otherwise=explanation["message"],
    )
    terminal.say("The GPU cools down, and the workload is placed without another kubectl apply:")
    _set_temperature(context, driver, hot, hot.cool_celsius)
    begin = monotonic()
    if placement.wait_ready(context, PINNED_NAME):
        terminal.progress(f"{PINNED_NAME}: Ready {monotonic() - begin:.1f} s later")
        placement.verify(context, PINNED_NAME)


def _pick(context: DemoContext, probe: JsonObject) -> ReplicaEvidence | None:
    """Applies the probe and returns its only replica, or None when it is not Ready in time."""
    context.apply(probe)
    name = probe["metadata"]["name"]
    return context.evidence(name).replicas[0] if placement.wait_ready(context, name) else None


def explained(workload: JsonObject) -> bool:
    """Returns whether a workload that is not placed explains why."""
    return objects.condition(workload, "Placed").get("status") == "False" and bool(
        workload.get("status", {}).get("explanation", {}).get("message")
    )


def temperature(telemetry: JsonObject, uuid: str) -> int | None:
    """Returns a device's temperature in a GPUTelemetry, in degrees Celsius."""
    return next((gpu.temperature_celsius for gpu in objects.gpus(telemetry) if gpu.uuid == uuid), None)


def _free_gpus(context: DemoContext) -> int:
    fleet = context.fleet()
    return sum(fleet.holder(gpu.uuid) is None for gpu in fleet.gpus)


def _where(context: DemoContext, replica: ReplicaEvidence) -> str:
    gpu = context.fleet().gpu(replica.picked[0])
    return f"GPU {gpu.index} of {gpu.node} ({gpu.uuid})" if gpu else replica.picked[0]
