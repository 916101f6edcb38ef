"""The act about heat: the best GPU gets hot, and the next workload goes elsewhere and says why.

The same manifest is applied before and after. What it gets before is what it would have got after, had nothing
changed; so no ranking of our own is needed to know which GPU was best.
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
PINNED_NAME = "only-the-hot-one"


@dataclass(frozen=True, slots=True)
class HotGpu:
    """A GPU that reports `HOT_CELSIUS`, and what it reported before."""

    node: str
    uuid: str
    cool_celsius: int


def delete_and_free(context: DemoContext, name: str) -> None:
    """Delete a workload: its devices must be free again."""
    before = _free_gpus(context)
    context.terminal.say(
        "Kubernetes' garbage collector deletes the pods. It learns of a new CRD within 30 s: so long may this take."
    )
    context.terminal.command(f"kubectl delete --namespace={WORKLOAD_NAMESPACE} gpuworkload {name}")
    context.delete(name)
    after = _free_gpus(context)
    claim = f"the kubelets hold nothing of it any more: {before} GPUs were free, now {after}"
    context.check(holds=after > before, subject=name, claim=claim)


def avoid_hot_gpu(context: DemoContext, driver: SimulatedDriver) -> None:
    """Find the best GPU, heat it, see the next workload avoid it, and hear why from one that insists."""
    terminal, probe = context.terminal, manifest(PROBE)
    limit = probe["spec"]["requirements"]["maxTemperatureCelsius"]
    terminal.say(f"Which GPU is best now? `next` asks for one below {limit} C; it is deleted once we know.")
    before = _pick(context, probe)
    if before is None:
        return
    context.delete(probe["metadata"]["name"])
    terminal.say(f"The best is {_where(context, before)}. Now the simulated driver says that it has {HOT_CELSIUS} C.")
    hot = _make_hot(context, driver, before)
    placement.show_fleet(context, mark=hot.uuid)
    _avoid(context, probe, before, hot)
    _insist(context, driver, probe, hot)


def _make_hot(context: DemoContext, driver: SimulatedDriver, pick: ReplicaEvidence) -> HotGpu:
    """Heat the picked GPU and wait until telemetry shows it."""
    hot = HotGpu(pick.node, pick.picked[0], driver.temperature(pick.node, pick.picked[0]))
    context.terminal.command(driver.command(hot.node, hot.uuid, HOT_CELSIUS))
    _set_temperature(context, driver, hot, HOT_CELSIUS)
    return hot


def _set_temperature(context: DemoContext, driver: SimulatedDriver, hot: HotGpu, celsius: int) -> None:
    """Let the GPU report this temperature, and wait until telemetry shows it."""
    begin = monotonic()
    driver.heat(hot.node, hot.uuid, celsius)
    context.collector.wait_for_telemetry(
        hot.node, lambda found: temperature(found, hot.uuid) == celsius, timeout_seconds=context.timeout_seconds
    )
    context.terminal.progress(f"GPUTelemetry {hot.node} shows {celsius} C after {monotonic() - begin:.1f} s")


def _avoid(context: DemoContext, probe: JsonObject, before: ReplicaEvidence, hot: HotGpu) -> None:
    """Apply the same manifest again: it must get another GPU."""
    after = _pick(context, probe)
    if after is None:
        return
    name = probe["metadata"]["name"]
    context.terminal.say("Why this one, as the status tells it: a score from 0 (worst) to 1000 (best), and its terms.")
    context.terminal.show(tables.score_table([("before the heat", before), ("now", after)], context.fleet()))
    context.check(
        holds=hot.uuid not in after.picked,
        subject=name,
        claim=f"the same manifest now gets {_where(context, after)}, not the hot one",
    )
    placement.prove(context, name)


def _insist(context: DemoContext, driver: SimulatedDriver, probe: JsonObject, hot: HotGpu) -> None:
    """Ask for exactly the hot GPU: the workload waits and says why; once it is cool, it is placed."""
    terminal, wants = context.terminal, deepcopy(probe)
    wants["metadata"]["name"] = PINNED_NAME
    wants["spec"]["requirements"]["includeUUIDs"] = [hot.uuid]
    terminal.say(f"And who insists on the hot GPU? `{PINNED_NAME}` names its UUID and keeps the limit.")
    context.apply(wants)
    try:
        waiting = context.collector.wait_for_workload(
            WORKLOAD_NAMESPACE, PINNED_NAME, explained, timeout_seconds=context.timeout_seconds
        )
    except WaitTimeoutError as error:
        context.check(holds=False, subject=PINNED_NAME, claim="it waits and says why", otherwise=str(error))
        return
    explanation = waiting["status"]["explanation"]
    terminal.quote(explanation["message"])
    reasons = [one["reason"] for one in explanation.get("rejections", [])]
    context.check(
        holds="TemperatureTooHigh" in reasons,
        subject=PINNED_NAME,
        claim="it waits, and the heat is the reason",
        otherwise=explanation["message"],
    )
    terminal.say("The GPU cools down, and nobody has to apply anything again:")
    _set_temperature(context, driver, hot, hot.cool_celsius)
    begin = monotonic()
    if placement.follow(context, PINNED_NAME):
        terminal.progress(f"{PINNED_NAME}: Ready {monotonic() - begin:.1f} s later")
        placement.prove(context, PINNED_NAME)


def _pick(context: DemoContext, probe: JsonObject) -> ReplicaEvidence | None:
    """Apply the probe and return its only replica, or None when it isn't Ready in time."""
    context.apply(probe)
    name = probe["metadata"]["name"]
    return context.evidence(name).replicas[0] if placement.follow(context, name) else None


def explained(workload: JsonObject) -> bool:
    """Whether a workload that isn't placed says why."""
    return objects.condition(workload, "Placed").get("status") == "False" and bool(
        workload.get("status", {}).get("explanation", {}).get("message")
    )


def temperature(telemetry: JsonObject, uuid: str) -> int | None:
    """What a GPUTelemetry says of one device, in degrees Celsius."""
    return next((gpu.temperature_celsius for gpu in objects.gpus(telemetry) if gpu.uuid == uuid), None)


def _free_gpus(context: DemoContext) -> int:
    fleet = context.fleet()
    return sum(fleet.holder(gpu.uuid) is None for gpu in fleet.gpus)


def _where(context: DemoContext, replica: ReplicaEvidence) -> str:
    gpu = context.fleet().gpu(replica.picked[0])
    return f"GPU {gpu.index} of {gpu.node} ({gpu.uuid})" if gpu else replica.picked[0]
