"""Each way in which the sources can disagree is found, and named after the source that differs."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from gpufleet_e2e.proof import assemble
from gpufleet_e2e.proof.assemble import ContainerReading, Readings
from gpufleet_e2e.proof.compare import Disagreement, compare, compare_shards, incomplete
from gpufleet_e2e.proof.evidence import Holding, Source

Make = Callable[[], Readings]


def judge(readings: Readings) -> list[str]:
    fleet = assemble.fleet(readings.telemetry, readings.holdings)
    return [str(one) for one in compare([assemble.workload(readings)], fleet)]


def test_agreeing_sources_in_any_order_report_nothing(readings: Make) -> None:
    assert judge(readings()) == []
    assert compare_shards(assemble.workload(readings())) == ()


def test_replicas_of_other_owners_may_have_any_index(readings: Make) -> None:
    made = readings()
    fleet, found = assemble.fleet(made.telemetry, made.holdings), assemble.workload(made)
    later = replace(found, open_ended=True, replicas=tuple(replace(r, replica=r.replica + 3) for r in found.replicas))
    assert compare([later], fleet) == ()
    (missing,) = compare([replace(later, replicas_wanted=len(found.replicas) + 1)], fleet)
    assert "pods exist" in str(missing)


def test_container_with_another_device_is_reported(readings: Make) -> None:
    made = readings()
    other = ContainerReading({"NVIDIA_VISIBLE_DEVICES": "GPU-a,GPU-c"})
    spoilt = replace(made, containers={**made.containers, "train-0-a": other})
    assert judge(spoilt) == ["demo/train[0]: container env: names GPU-a, GPU-c, the status names GPU-a, GPU-b"]


def test_a_device_named_twice_is_not_the_same_as_once(readings: Make) -> None:
    made = readings()
    twice = ContainerReading({"NVIDIA_VISIBLE_DEVICES": "GPU-a,GPU-b,GPU-b"})
    assert len(judge(replace(made, containers={**made.containers, "train-0-a": twice}))) == 1


@pytest.mark.parametrize(
    ("reading", "words"),
    [
        (ContainerReading({}), "has no answer (NVIDIA_VISIBLE_DEVICES is not set)"),
        (ContainerReading(None, "kubectl exec: no such container"), "has no answer (kubectl exec: no such container)"),
        (ContainerReading({"NVIDIA_VISIBLE_DEVICES": ""}), "names no device, the status names GPU-a, GPU-b"),
    ],
)
def test_container_without_output_is_reported(readings: Make, reading: ContainerReading, words: str) -> None:
    made = readings()
    spoilt = replace(made, containers={**made.containers, "train-0-a": reading})
    assert judge(spoilt) == [f"demo/train[0]: container env: {words}"]


def test_a_kubelet_that_names_another_device_is_reported(readings: Make) -> None:
    made = readings()
    wrong = Holding("node-1", "demo", "train-0-a", "main", "gpufleet.dev/gpu", ("GPU-a", "GPU-x"))
    assert judge(replace(made, holdings=[wrong, made.holdings[1]])) == [
        "demo/train[0]: PodResources: names GPU-a, GPU-x, the status names GPU-a, GPU-b"
    ]


def test_a_device_that_two_containers_hold_is_reported(readings: Make) -> None:
    made = readings()
    second = Holding("node-1", "demo", "thief", "main", "gpufleet.dev/gpu", ("GPU-b",))
    assert judge(replace(made, holdings=[*made.holdings, second])) == [
        "GPU-b: PodResources: held by demo/train-0-a/main and demo/thief/main"
    ]


def test_a_device_picked_for_two_workloads_is_reported(readings: Make) -> None:
    made = readings()
    first = assemble.workload(made)
    fleet = assemble.fleet(made.telemetry, made.holdings)
    found = compare([first, replace(first, name="twin")], fleet)
    assert [one.subject for one in found] == ["GPU-a", "GPU-b", "GPU-c", "GPU-d"]
    assert found[0].message == "picked for demo/train[0] and demo/twin[0]"


class TestShared:
    """The workload of the fixture with 30,000 MiB of each device instead of all of it."""

    def make(self, readings: Make, memory: int = 30_000) -> Readings:
        made = readings()
        made.workload["spec"]["devices"].update(mode="Shared", memoryMiB=memory)
        for node in made.telemetry:
            for assignment in node["spec"]["assignments"]:
                assignment["memoryMiB"] = memory
        for pod in made.pods:
            (allocated,) = pod["status"]["containerStatuses"][0]["allocatedResourcesStatus"]
            allocated["name"] = "gpufleet.dev/gpu-shared"
            for entry in allocated["resources"]:
                entry["resourceID"] += "::3"
        holdings = [
            replace(one, resource="gpufleet.dev/gpu-shared", devices=tuple(f"{uuid}::3" for uuid in one.devices))
            for one in made.holdings
        ]
        reported = {
            name: replace(reading, variables={**(reading.variables or {}), "GPUFLEET_MEMORY_MIB": str(memory)})
            for name, reading in made.containers.items()
        }
        return replace(made, holdings=holdings, containers=reported)

    def test_slots_count_as_their_devices(self, readings: Make) -> None:
        assert judge(self.make(readings)) == []

    def test_shared_picks_that_fit_are_not_double_picks(self, readings: Make) -> None:
        made = self.make(readings)
        first, fleet = assemble.workload(made), assemble.fleet(made.telemetry, made.holdings)
        twin = replace(first, name="twin")
        assert compare([first, twin], fleet) == ()
        found = compare([first, twin, replace(first, name="third")], fleet)
        words = "90000 of 81559 MiB promised to demo/train[0] and demo/twin[0] and demo/third[0]"
        assert [one.subject for one in found] == ["GPU-a", "GPU-b", "GPU-c", "GPU-d"]
        assert found[0].message == words

    def test_device_picked_as_a_whole_and_shared_is_reported(self, readings: Make) -> None:
        made = self.make(readings)
        first, fleet = assemble.workload(made), assemble.fleet(made.telemetry, made.holdings)
        whole = replace(first, name="whole", memory_mib=None)
        whole = replace(whole, replicas=tuple(replace(one, promised_mib={}) for one in whole.replicas))
        assert {str(one) for one in compare([first, whole], fleet)} >= {
            "GPU-a: status.placements: picked for demo/train[0] and demo/whole[0]"
        }

    def test_slot_with_two_holders_and_device_held_in_both_ways_are_reported(self, readings: Make) -> None:
        made = self.make(readings)
        beside = replace(made.holdings[0], pod="beside", devices=("GPU-a::4", "GPU-b::4"))
        assert judge(replace(made, holdings=[*made.holdings, beside])) == []
        same = replace(beside, pod="thief", devices=("GPU-a::3",))
        assert judge(replace(made, holdings=[*made.holdings, same])) == [
            "GPU-a: PodResources: held by demo/train-0-a/main and demo/thief/main"
        ]
        whole = replace(beside, pod="thief", resource="gpufleet.dev/gpu", devices=("GPU-b",))
        assert judge(replace(made, holdings=[*made.holdings, whole])) == [
            "GPU-b: PodResources: held by demo/train-0-a/main and demo/thief/main"
        ]

    def test_another_promise_than_asked_for_is_reported(self, readings: Make) -> None:
        made = self.make(readings)
        variables = {**(made.containers["train-0-a"].variables or {}), "GPUFLEET_MEMORY_MIB": "1"}
        wrong = replace(made.containers["train-0-a"], variables=variables)
        assert judge(replace(made, containers={**made.containers, "train-0-a": wrong})) == [
            "demo/train[0]: container env: promises 1 MiB, the spec requests 30000 MiB"
        ]


def spoil_pod(readings: Readings, index: int, change: Callable[[dict[str, Any]], None]) -> Readings:
    pods = [dict(pod) for pod in readings.pods]
    change(pods[index])
    return replace(readings, pods=pods)


def spoil_workload(readings: Readings, change: Callable[[Mapping[str, Any]], None]) -> Readings:
    change(readings.workload)
    return readings


def test_missing_allocated_resources_status_is_reported_unless_excluded(readings: Make) -> None:
    made = spoil_pod(readings(), 1, lambda pod: pod.update(status={"phase": "Running"}))
    assert judge(made) == [
        "demo/train[1]: allocatedResourcesStatus: has no answer (no allocatedResourcesStatus for the container)"
    ]
    older = [Source.RESERVATION, Source.ANNOTATION, Source.ENVIRONMENT, Source.POD_RESOURCES]
    fleet = assemble.fleet(made.telemetry, made.holdings)
    assert compare([assemble.workload(made)], fleet, sources=older) == ()


def test_status_that_kubelets_do_not_write_is_not_waited_for(readings: Make) -> None:
    made = replace(readings(), pod_status=False)
    found = assemble.workload(spoil_pod(made, 1, lambda pod: pod.update(status={"phase": "Running"})))
    assert not incomplete(found)
    assert Source.POD_STATUS not in found.sources


def test_status_that_names_no_devices_yet_is_waited_for(readings: Make) -> None:
    """A moved pod runs on its new device, and its placement is written a moment later."""
    made = spoil_workload(readings(), lambda workload: workload["status"]["placements"][0].pop("devices"))
    assert judge(made)
    assert incomplete(assemble.workload(made))
    assert not incomplete(assemble.workload(readings()))


def test_a_forged_or_absent_annotation_is_reported(readings: Make) -> None:
    def without(pod: dict[str, Any]) -> None:
        pod["metadata"] = {**pod["metadata"], "annotations": {}}

    def broken(pod: dict[str, Any]) -> None:
        pod["metadata"] = {**pod["metadata"], "annotations": {"gpufleet.dev/assignment": "[1]"}}

    assert judge(spoil_pod(readings(), 0, without)) == [
        "demo/train[0]: pod annotation: has no answer (no annotation gpufleet.dev/assignment)"
    ]
    assert judge(spoil_pod(readings(), 0, broken)) == [
        "demo/train[0]: pod annotation: has no answer (annotation is not a JSON object with devices: [1])"
    ]


def test_status_of_an_older_pod_is_reported(readings: Make) -> None:
    def other_uid(pod: dict[str, Any]) -> None:
        pod["metadata"] = {**pod["metadata"], "uid": "uid-new"}

    found = judge(spoil_pod(readings(), 0, other_uid))
    assert found[0] == "demo/train[0]: status.placements: 0 devices, the spec requests 2"
    assert "demo/train[0]: spec.assignments: has no answer (no assignment for this pod's UID)" in found


def test_pod_on_another_node_than_its_device_is_reported(readings: Make) -> None:
    made = spoil_pod(readings(), 0, lambda pod: pod.update(spec={"nodeName": "node-2"}))
    assert "demo/train[0]: GPUTelemetry: GPU-a is on node-1, the pod on node-2" in judge(made)


def test_missing_replica_and_stray_pod_are_reported(readings: Make) -> None:
    made = spoil_workload(readings(), lambda workload: workload["status"]["placements"].pop(0))
    assert judge(made) == [
        "demo/train[1]: status.placements: contains it 0 times, not once",
        "demo/train: status.placements: does not name the live pod train-1-b",
    ]


def test_surplus_replica_and_too_few_devices_are_reported(readings: Make) -> None:
    def shrink(workload: Mapping[str, Any]) -> None:
        workload["spec"].update(replicas=1, devices={"count": 3})

    assert judge(spoil_workload(readings(), shrink)) == [
        "demo/train: status.placements: names replica 1, the spec requests 1",
        "demo/train[0]: status.placements: 2 devices, the spec requests 3",
        "demo/train[1]: status.placements: 2 devices, the spec requests 3",
    ]


def test_missing_pod_leaves_every_source_without_devices(readings: Make) -> None:
    made = readings()
    found = judge(replace(made, pods=[made.pods[0]]))
    gone = "has no answer (pod train-1-b does not exist)"
    assert f"demo/train[1]: container env: {gone}" in found
    assert len([line for line in found if line.endswith(gone)]) == 5


@pytest.mark.parametrize(
    ("shards", "left", "words"),
    [
        (((0, 60), (61, 100)), 0, "61..100 does not follow on 60"),
        (((0, 60), (59, 100)), 0, "59..100 does not follow on 60"),
        (((1, 60), (60, 100)), 0, "1..60 does not follow on 0"),
        (((0, 60), (60, 90)), 0, "end at 90, 100 items are assigned"),
        (((0, 60), (60, 100)), 10, "end at 100, 90 items are assigned"),
    ],
)
def test_shards_with_gap_overlap_or_rest_are_reported(
    readings: Make, shards: tuple[tuple[int, int], ...], left: int, words: str
) -> None:
    evidence = assemble.workload(readings())
    replicas = tuple(
        replace(replica, shard=replace(replica.shard, status=shard, environment=shard, log=shard))
        for replica, shard in zip(evidence.replicas, shards, strict=True)
    )
    found = compare_shards(replace(evidence, replicas=replicas, unassigned_items=left))
    assert found == (Disagreement("demo/train", "shards", words),)


def test_container_with_another_shard_is_reported(readings: Make) -> None:
    made = readings()
    variables = {"GPUFLEET_SHARD_START": "0", "GPUFLEET_SHARD_END": "50"}
    wrong = ContainerReading(variables, log="shard 0 to 40")
    found = compare_shards(assemble.workload(replace(made, containers={**made.containers, "train-0-a": wrong})))
    assert [str(one) for one in found] == [
        "demo/train[0]: container env: names 0..50, the status names 0..60",
        "demo/train[0]: container log: names 0..40, the status names 0..60",
    ]


def test_workload_without_distribution_or_shards_is_reported(readings: Make) -> None:
    evidence = assemble.workload(readings())
    assert compare_shards(replace(evidence, items=None))[0].message == "is not set"
    silent = replace(evidence.replicas[0], shard=replace(evidence.replicas[0].shard, status=None))
    found = compare_shards(replace(evidence, replicas=(silent, evidence.replicas[1])))
    assert [one.message for one in found] == ["names no shard", "60..100 does not follow on 0"]
