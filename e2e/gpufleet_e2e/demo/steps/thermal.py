"""The act about heat: the best GPU gets hot, and the next workload goes elsewhere and says why.

The same manifest is applied before and after. What it gets before is what it would have got after, had nothing
changed; so no ranking of our own is needed to know which GPU was best.
"""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from gpufleet_e2e.demo import tables
from gpufleet_e2e.demo.context import WORKLOAD_NAMESPACE, JsonObject, Stage, manifest
from gpufleet_e2e.demo.driver import Driver
from gpufleet_e2e.demo.steps import placement
from gpufleet_e2e.proof import ReplicaEvidence, WaitTimeoutError, objects

HOT_CELSIUS = 95
PROBE = Path(__file__).with_name("next.yaml")
INSIST = "only-the-hot-one"


@dataclass(frozen=True, slots=True)
class Heated:
    """A GPU that reports `HOT_CELSIUS`, and what it reported before."""

    node: str
    uuid: str
    cool_celsius: int


def free(stage: Stage, name: str) -> None:
    """Delete a workload: its devices must be free again."""
    before = _free_gpus(stage)
    stage.screen.say(
        "Kubernetes' garbage collector deletes the pods. It learns of a new CRD within 30 s: so long may this take."
    )
    stage.screen.command(f"kubectl delete --namespace={WORKLOAD_NAMESPACE} gpuworkload {name}")
    stage.delete(name)
    after = _free_gpus(stage)
    claim = f"the kubelets hold nothing of it any more: {before} GPUs were free, now {after}"
    stage.check(holds=after > before, subject=name, claim=claim)


def heat(stage: Stage, driver: Driver) -> None:
    """Find the best GPU, heat it, see the next workload avoid it, and hear why from one that insists."""
    screen, probe = stage.screen, manifest(PROBE)
    limit = probe["spec"]["requirements"]["maxTemperatureCelsius"]
    screen.say(f"Which GPU is best now? `next` asks for one below {limit} C; it is deleted once we know.")
    before = _pick(stage, probe)
    if before is None:
        return
    stage.delete(probe["metadata"]["name"])
    screen.say(f"The best is {_where(stage, before)}. Now the simulated driver says that it has {HOT_CELSIUS} C.")
    hot = _make_hot(stage, driver, before)
    placement.show_fleet(stage, mark=hot.uuid)
    _avoid(stage, probe, before, hot)
    _insist(stage, driver, probe, hot)


def _make_hot(stage: Stage, driver: Driver, pick: ReplicaEvidence) -> Heated:
    """Heat the picked GPU and wait until telemetry shows it."""
    hot = Heated(pick.node, pick.picked[0], driver.temperature(pick.node, pick.picked[0]))
    stage.screen.command(driver.command(hot.node, hot.uuid, HOT_CELSIUS))
    _set_temperature(stage, driver, hot, HOT_CELSIUS)
    return hot


def _set_temperature(stage: Stage, driver: Driver, hot: Heated, celsius: int) -> None:
    """Let the GPU report this temperature, and wait until telemetry shows it."""
    begin = monotonic()
    driver.heat(hot.node, hot.uuid, celsius)
    stage.witness.wait_for_telemetry(
        hot.node, lambda found: temperature(found, hot.uuid) == celsius, timeout_seconds=stage.timeout_seconds
    )
    stage.screen.progress(f"GPUTelemetry {hot.node} shows {celsius} C after {monotonic() - begin:.1f} s")


def _avoid(stage: Stage, probe: JsonObject, before: ReplicaEvidence, hot: Heated) -> None:
    """Apply the same manifest again: it must get another GPU."""
    after = _pick(stage, probe)
    if after is None:
        return
    name = probe["metadata"]["name"]
    stage.screen.say("Why this one, as the status tells it: a score from 0 (worst) to 1000 (best), and its terms.")
    stage.screen.show(tables.score_table([("before the heat", before), ("now", after)], stage.fleet()))
    stage.check(
        holds=hot.uuid not in after.picked,
        subject=name,
        claim=f"the same manifest now gets {_where(stage, after)}, not the hot one",
    )
    placement.prove(stage, name)


def _insist(stage: Stage, driver: Driver, probe: JsonObject, hot: Heated) -> None:
    """Ask for exactly the hot GPU: the workload waits and says why; once it is cool, it is placed."""
    screen, wants = stage.screen, deepcopy(probe)
    wants["metadata"]["name"] = INSIST
    wants["spec"]["requirements"]["includeUUIDs"] = [hot.uuid]
    screen.say(f"And who insists on the hot GPU? `{INSIST}` names its UUID and keeps the limit.")
    stage.apply(wants)
    try:
        waiting = stage.witness.wait_for_workload(
            WORKLOAD_NAMESPACE, INSIST, explained, timeout_seconds=stage.timeout_seconds
        )
    except WaitTimeoutError as error:
        stage.check(holds=False, subject=INSIST, claim="it waits and says why", otherwise=str(error))
        return
    explanation = waiting["status"]["explanation"]
    screen.quote(explanation["message"])
    reasons = [one["reason"] for one in explanation.get("rejections", [])]
    stage.check(
        holds="TooHot" in reasons,
        subject=INSIST,
        claim="it waits, and the heat is the reason",
        otherwise=explanation["message"],
    )
    screen.say("The GPU cools down, and nobody has to apply anything again:")
    _set_temperature(stage, driver, hot, hot.cool_celsius)
    begin = monotonic()
    if placement.follow(stage, INSIST):
        screen.progress(f"{INSIST}: Ready {monotonic() - begin:.1f} s later")
        placement.prove(stage, INSIST)


def _pick(stage: Stage, probe: JsonObject) -> ReplicaEvidence | None:
    """Apply the probe and return its only replica, or None when it isn't Ready in time."""
    stage.apply(probe)
    name = probe["metadata"]["name"]
    return stage.evidence(name).replicas[0] if placement.follow(stage, name) else None


def explained(workload: JsonObject) -> bool:
    """Whether a workload that isn't placed says why."""
    return objects.condition(workload, "Placed").get("status") == "False" and bool(
        workload.get("status", {}).get("explanation", {}).get("message")
    )


def temperature(telemetry: JsonObject, uuid: str) -> int | None:
    """What a GPUTelemetry says of one device, in degrees Celsius."""
    return next((gpu.temperature_celsius for gpu in objects.gpus(telemetry) if gpu.uuid == uuid), None)


def _free_gpus(stage: Stage) -> int:
    fleet = stage.fleet()
    return sum(fleet.holder(gpu.uuid) is None for gpu in fleet.gpus)


def _where(stage: Stage, replica: ReplicaEvidence) -> str:
    gpu = stage.fleet().gpu(replica.picked[0])
    return f"GPU {gpu.index} of {gpu.node} ({gpu.uuid})" if gpu else replica.picked[0]
