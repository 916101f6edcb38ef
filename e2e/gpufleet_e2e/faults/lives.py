"""Lives of workloads under an operator that is killed at some of its writes, compared with lives without kills."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Unpack

from gpufleet_api.names import WAITING_FOR_ANNOTATION
from gpufleet_e2e.faults import writes
from gpufleet_e2e.faults.killing_proxy import Kills, When
from gpufleet_e2e.faults.mortal_operator import MortalOperator
from gpufleet_e2e.proof import objects
from gpufleet_e2e.support import api
from gpufleet_e2e.support.api import NODES, JsonObject, pods, services, workloads
from gpufleet_e2e.support.claims import claims
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import WorkloadFields, gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import FREE_SECONDS, TestNamespace

BOTH = (When.BEFORE, When.AFTER)
END_SECONDS = 60
START_SECONDS = 20
"""After each kill: a process starts, and lists everything."""
_KEPT = "cluster-autoscaler.kubernetes.io/scale-down-disabled"
_COUNTS = ("replicas", "readyReplicas", "allocatedReplicas", "updatedReplicas", "succeeded", "failed", "ready")


@dataclass(frozen=True)
class Stage:
    """Where a life takes place."""

    namespace: TestNamespace
    name: str
    """Of its workload."""
    node: str
    """The only acceptable one."""
    within: float
    """Seconds for each step."""

    @property
    def fleet(self) -> Fleet:
        return self.namespace.fleet

    def apply(self, **fields: Unpack[WorkloadFields]) -> None:
        self.namespace.apply(gpuworkload(self.name, node=self.node, **fields))

    def edit(self, **spec: object) -> None:
        self.fleet.api.patch(f"{workloads(self.namespace.name)}/{self.name}", {"spec": spec})

    def has(self, condition: str) -> None:
        assert objects.is_true(self.namespace.workload(self.name), condition), self.namespace.describe(self.name)


@dataclass(frozen=True)
class Life:
    """What happens to a workload, and the writes that this needs.

    Args:
        kills: When the operator is killed, by kind of write.
        begin: Starts it. Without kills the operator has an answer to each step.
        ended: Asserts that it is over.
    """

    kills: Kills
    begin: Callable[[Stage], None]
    ended: Callable[[Stage], None]


def ready(stage: Stage) -> None:
    stage.has("Ready")


def ready_first(act: Callable[[Stage], None], **fields: Unpack[WorkloadFields]) -> Callable[[Stage], None]:
    """Returns the beginning in which something happens to a workload that runs."""

    def begin(stage: Stage) -> None:
        stage.apply(**fields)
        stage.namespace.wait_ready(stage.name, within=stage.within)
        act(stage)

    return begin


def suspended(stage: Stage) -> None:
    stage.has("Suspended")
    assert not reservations(stage)
    assert not stage.namespace.all_pods(stage.name), "a pod that has ended is still being deleted"


def reservations(stage: Stage) -> list[JsonObject]:
    found = stage.fleet.assignments(stage.namespace.name).values()
    return [one for one in found if one["workload"] == stage.name]


def demands(stage: Stage) -> list[JsonObject]:
    found = stage.fleet.api.list(api.demands(stage.namespace.name))
    return [one for one in found if one["spec"]["owner"]["name"] == stage.name]


def placeholders(stage: Stage) -> list[JsonObject]:
    found = stage.fleet.api.list(pods(stage.namespace.name))
    return [pod for pod in found if writes.PLACEHOLDER in pod["metadata"]["name"]]


def conditions_of(body: JsonObject) -> dict[str, tuple[str, str]]:
    found = body.get("status", {}).get("conditions", [])
    return {one["type"]: (one["status"], one.get("reason", "")) for one in found}


def telemetry_conditions(stage: Stage) -> dict[str, tuple[str, str]]:
    return conditions_of(stage.fleet.telemetry(stage.node))


def node_state(stage: Stage) -> dict[str, Any]:
    node = stage.fleet.api.get(f"{NODES}/{stage.node}")
    kept = node["metadata"].get("annotations", {}).get(_KEPT)
    return {"GPUHealthy": conditions_of(node).get("GPUHealthy"), "kept": kept}


def state(stage: Stage) -> Mapping[str, Any]:
    """Returns everything that the operator writes, without names, times and the choice among equal devices."""
    namespace = stage.namespace
    workload = namespace.workload(stage.name) if namespace.exists(stage.name) else {}
    status = workload.get("status", {})
    return {
        "conditions": conditions_of(workload),
        "counts": {name: status.get(name) for name in _COUNTS},
        "placements": [(one["replica"], one["state"], one.get("node")) for one in status.get("placements", [])],
        "pods": sorted(
            (
                pod["metadata"]["labels"].get("gpufleet.dev/replica", ""),
                pod["status"]["phase"],
                [gate["name"] for gate in pod["spec"].get("schedulingGates", [])],
                pod["spec"].get("nodeName"),
                pod["metadata"].get("annotations", {}).get(WAITING_FOR_ANNOTATION),
            )
            for pod in namespace.all_pods(stage.name)
        ),
        "placeholders": [conditions_of(pod) for pod in placeholders(stage)],
        "reservations": sorted((one["replica"], one["node"], len(one["devices"])) for one in reservations(stage)),
        "services": sorted(
            sorted(
                (key.replace(stage.name, ""), value.replace(stage.name, ""))
                for key, value in one["spec"]["selector"].items()
            )
            for one in stage.fleet.api.list(services(namespace.name))
        ),
        "claims": len(stage.fleet.api.list(claims(namespace.name))),
        "demands": [
            (one["status"]["countedRuns"], one["status"]["maxMiB"], [run["state"] for run in one["status"]["runs"]])
            for one in demands(stage)
            if "status" in one
        ],
        "telemetry": telemetry_conditions(stage),
        "node": node_state(stage),
    }


def clean(stage: Stage) -> None:
    """Removes everything, so that the next life begins as this one did."""
    for one in stage.fleet.api.list(workloads(stage.namespace.name)):
        stage.namespace.delete(one["metadata"]["name"])
    for one in stage.fleet.api.list(pods(stage.namespace.name)):
        if not one["metadata"].get("ownerReferences"):
            stage.fleet.api.delete(f"{pods(stage.namespace.name)}/{one['metadata']['name']}", grace=0)

    def empty() -> None:
        assert not stage.fleet.assignments(stage.namespace.name)
        assert not stage.fleet.api.list(pods(stage.namespace.name))
        assert not stage.fleet.api.list(services(stage.namespace.name))
        assert telemetry_conditions(stage)["Healthy"][0] == "True"
        assert node_state(stage) == {"GPUHealthy": ("True", "DevicesHealthy"), "kept": None}

    eventually(empty, within=FREE_SECONDS)


def same(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    differences = {key: (found[key], expected[key]) for key in expected if found[key] != expected[key]}
    assert not differences, differences


def check_life(namespace: TestNamespace, operator: MortalOperator, life: Life, node: str) -> None:
    """Runs a life without kills, then with them, and compares how they end."""
    operator.proxy.kill_at({})  # a life that failed may have left some
    restarts = START_SECONDS * sum(map(len, life.kills.values()))
    undisturbed = Stage(namespace, "undisturbed", node, END_SECONDS)
    killed = Stage(namespace, "killed", node, END_SECONDS + restarts)
    life.begin(undisturbed)
    eventually(lambda: life.ended(undisturbed), within=END_SECONDS)
    expected = state(undisturbed)
    clean(undisturbed)

    operator.proxy.kill_at(life.kills)
    before = len(operator.proxy.kills)
    life.begin(killed)
    eventually(operator.check, within=killed.within)
    eventually(lambda: life.ended(killed), within=END_SECONDS)
    eventually(lambda: same(state(killed), expected), within=END_SECONDS)
    for kind, when in operator.proxy.kills[before:]:
        print(f"killed at: {kind}, {when}")
    clean(killed)
