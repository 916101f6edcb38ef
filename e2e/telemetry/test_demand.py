"""What earlier runs of a template used is kept, recommended, and not forgotten."""

from gpufleet_e2e.support import api
from gpufleet_e2e.support.api import JsonObject
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload, pod_spec
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.programs.command_line import CommandLine
from gpufleet_e2e.support.sandbox import TestNamespace

RUNS = ("train-bcdfg", "train-x7k2p", "train-z9999")
"""Names as the apiserver generates them from `train-`."""
ASKED = 60_000
USED = (9_000, 7_000)
RECOMMENDED = 9_900
LEARNED = ASKED - (ASKED - RECOMMENDED) * 2 // 5
NEIGHBOR = 30_000
USABLE = 81_080
"""MiB."""
RECORDED_SECONDS = 30
"""A heartbeat of the agent, the time for which a run must be observed, and the operator's interval twice."""


def run_of(name: str, uuid: str, demand: str = "Promised") -> JsonObject:
    """Builds a workload whose pod ends, on this device."""
    return gpuworkload(
        name,
        devices={"mode": "Shared", "memoryMiB": ASKED},
        uuids=(uuid,),
        template=pod_spec(restartPolicy="Never"),
        placement={"demand": demand},
    )


def demands(fleet: Fleet, namespace: str) -> list[JsonObject]:
    return fleet.api.list(api.demands(namespace))


def run_twice(namespace: TestNamespace, fleet: Fleet, node: str, uuid: str) -> JsonObject:
    """Runs the template twice, one after the other; returns its GPUDemand."""
    for number, (name, used) in enumerate(zip(RUNS, USED, strict=False)):
        namespace.apply(run_of(name, uuid))
        namespace.verify(name)
        fleet.gpus[node].report(uuid, memory_used_mib=used)
        eventually(lambda: _counted(fleet, namespace.name, number + 1, used, "Running"), within=RECORDED_SECONDS)  # noqa: B023 - called here
        fleet.gpus[node].reset()
        namespace.delete(name)
        eventually(lambda: _counted(fleet, namespace.name, number + 1, used, "Ended"), within=RECORDED_SECONDS)  # noqa: B023 - as above
    (found,) = demands(fleet, namespace.name)
    return found


def test_runs_are_kept_and_recommended_across_a_restart(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the agent reports the use of each holder; the operator writes one object for both names."""
    node = fleet.nodes[1]
    before = run_twice(namespace, fleet, node, fleet.gpus[node].uuids[0])
    assert before["spec"]["owner"] == {"kind": "GPUWorkload", "name": "train"}
    status = before["status"]
    assert (status["promisedMiB"], status["maxMiB"], status["recommendedMiB"]) == (ASKED, max(USED), RECOMMENDED)
    assert (status["totalRuns"], status["countedRuns"]) == (2, 2)

    command = CommandLine(fleet.cluster)
    columns = command.kubectl("get", "gpudemands", "-n", namespace.name).out
    print(columns)
    head, row = (line.split() for line in columns.splitlines())
    shown = dict(zip(head, row, strict=True))
    assert (shown["OWNER"], shown["RUNS"], shown["PROMISED-MIB"], shown["MAX-MIB"]) == ("train", "2", "60000", "9000")
    advice = command.run("recommend", RUNS[0], "-n", namespace.name).out
    print(advice)
    assert f"promised 58.6 GiB, used at most 8.8 GiB in 2 runs; memoryMiB: {RECOMMENDED} is enough" in advice

    fleet.stop_operator()
    fleet.start_operator()
    uuid = fleet.gpus[node].uuids[1]
    namespace.apply(run_of(RUNS[2], uuid))
    namespace.verify(RUNS[2])
    fleet.gpus[node].report(uuid, memory_used_mib=8_000)
    eventually(lambda: _counted(fleet, namespace.name, 3, 8_000, "Running"), within=RECORDED_SECONDS)
    (after,) = demands(fleet, namespace.name)
    assert after["status"]["runs"][:2] == status["runs"]
    assert after["status"]["maxMiB"] == max(USED)


def test_learned_demand_is_placed_where_the_promise_does_not_fit(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: two fifths of what two runs did not use are left out, also by an operator that has just started.

    A neighbor keeps 30,000 of the 81,080 MiB: a promise of 60,000 does not fit beside it.
    """
    node = fleet.nodes[1]
    before, shared = fleet.gpus[node].uuids[2:4]
    run_twice(namespace, fleet, node, before)
    namespace.apply(gpuworkload("neighbor", devices={"mode": "Shared", "memoryMiB": NEIGHBOR}, uuids=(shared,)))
    namespace.verify("neighbor")
    fleet.stop_operator()
    fleet.start_operator()
    namespace.apply(run_of("other", shared, demand="Learned"), run_of(RUNS[2], shared, demand="Learned"))
    assert namespace.devices(RUNS[2]) == (shared,)
    reservation = namespace.reservation(RUNS[2])
    assert (reservation["memoryMiB"], reservation["demandMiB"]) == (ASKED, LEARNED)
    assert LEARNED + NEIGHBOR < USABLE < ASKED + NEIGHBOR
    namespace.wait_rejected("other", "InsufficientFreeMemory", 1, within=15)


def _counted(fleet: Fleet, namespace: str, runs: int, used: int, state: str) -> None:
    """Asserts that so many runs count, and that the latest of them has used so much and is in this state."""
    found = demands(fleet, namespace)
    assert len(found) == 1, found
    status = found[0].get("status", {})
    assert status.get("countedRuns") == runs, status
    latest = status["runs"][-1]
    assert (latest["maxMiB"], latest["state"]) == (used, state), status
