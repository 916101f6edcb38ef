"""Placements of workloads, and explanations of what is not placed."""

from typing import Any

import pytest

from gpufleet_operator.model.demands.template import TemplateKey
from gpufleet_testing.cli.files import ObjectFiles, gpu, gpu_workload, idle_node, telemetry
from gpufleet_testing.cli.runner import run_cli


def fleet(files: ObjectFiles) -> str:
    return str(files.write(idle_node("node-1"), idle_node("node-2", temperatureCelsius=60)))


def test_workload_gets_the_best_devices_with_their_score(files: ObjectFiles) -> None:
    manifest = files.write(gpu_workload(devices={"count": 2}))
    done = run_cli("simulate", "-f", manifest, "--from", fleet(files), "-o", "json")
    assert done.code == 0
    (workload,) = done.json["workloads"]
    assert done.json["placed"] is workload["placed"] is True
    (placement,) = workload["placements"]
    assert (placement["node"], placement["devices"]) == ("node-1", ["GPU-node-1-0", "GPU-node-1-1"])
    # Cool at 30 and 31 degrees: (60 + 59) / 2 of the 60 degrees between 30 and 90.
    assert placement["score"]["temperature"] == pytest.approx(59.5 / 60, abs=1e-4)
    assert placement["score"]["memory"] == placement["score"]["utilization"] == 1.0
    assert placement["score"]["power"] == pytest.approx(0.9)
    assert placement["score"]["total"] == pytest.approx(0.4 + 0.3 + 0.2 * 59.5 / 60 + 0.1 * 0.9, abs=1e-4)


TEMPLATE = TemplateKey("default", "GPUWorkload", "train", "main", "example")


def gpu_demand(runs: int, name: str = TEMPLATE.name) -> dict[str, Any]:
    owner = {"kind": TEMPLATE.owner_kind, "name": TEMPLATE.owner}
    return {
        "apiVersion": "gpufleet.dev/v1alpha1",
        "kind": "GPUDemand",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"owner": owner, "container": TEMPLATE.container, "image": TEMPLATE.image},
        "status": {"observedAt": "2026-01-01T00:00:00Z", "totalRuns": runs, "countedRuns": runs, "p80MiB": 10_000},
    }


@pytest.mark.parametrize(
    ("demand", "saved", "placed", "note"),
    [
        pytest.param("Learned", gpu_demand(14), 7,
                     "counted with 11,000 MiB learned from 14 runs, promised 60,000 MiB", id="known"),
        pytest.param("Learned", gpu_demand(1), 1,
                     "counted with the promised 60,000 MiB: fewer than 2 runs are known", id="one run"),
        pytest.param("Learned", gpu_demand(14, "another"), 1,
                     "counted with the promised 60,000 MiB: fewer than 2 runs are known",
                     id="of a name that the operator does not give"),
        pytest.param("Promised", gpu_demand(14), 1, None, id="by promises"),
    ],
)  # fmt: skip
def test_saved_demands_replace_promises_where_the_workload_asks_for_it(
    files: ObjectFiles, demand: str, saved: dict[str, Any], placed: int, note: str | None
) -> None:
    below = files.folder / "snapshot"
    below.mkdir()
    files.write(saved, name="snapshot/gpudemands.yaml")
    files.write(idle_node("node-1", 1), name="snapshot/gputelemetries.yaml")
    shared = {"mode": "Shared", "memoryMiB": 60_000}
    workload = gpu_workload("train-x7k2p", replicas=7, devices=shared, placement={"demand": demand})
    manifest = files.write(workload, name="manifest.txt")
    done = run_cli("simulate", "-f", manifest, "--from", str(files.folder), "-o", "json")
    assert len(done.json["workloads"][0]["placements"]) == placed
    assert [one for one in done.json["notes"] if "counted with" in one] == (
        [f"default/train-x7k2p: {note}"] if note else []
    )


def test_json_has_the_documented_shape(files: ObjectFiles) -> None:
    manifest = files.write(gpu_workload(replicas=5, placement={"strategy": "Spread"}))
    done = run_cli("simulate", "-f", manifest, "--from", fleet(files), "-o", "json")
    assert list(done.json) == ["placed", "workloads", "notes"]
    (workload,) = done.json["workloads"]
    assert {key: workload[key] for key in ("name", "source", "placed", "strategy", "topology", "gang", "replicas")} == {
        "name": "default/train",
        "source": manifest,
        "placed": False,
        "strategy": "Spread",
        "topology": "None",
        "gang": False,
        "replicas": 5,
    }
    assert [list(p) for p in workload["placements"]] == [["replica", "node", "devices", "score"]] * 4
    assert workload["unplaced"] == [4]
    explanation = workload["explanation"]
    assert list(explanation) == [
        "message",
        "devicesConsidered",
        "devicesEligible",
        "ineligibleDevices",
        "nearestMiss",
        "nodes",
    ]
    assert explanation["nodes"] == [
        {"name": name, "ineligibleDevices": [{"reason": "DeviceInUse", "devices": 2}]} for name in ("node-1", "node-2")
    ]
    assert explanation["devicesConsidered"] == 4
    assert explanation["ineligibleDevices"] == [{"reason": "DeviceInUse", "devices": 4, "nodes": 2}]
    assert list(explanation["nearestMiss"]) == ["node", "device", "reason", "message"]


def test_unplaced_workload_reports_what_it_lacks(files: ObjectFiles) -> None:
    manifest = files.write(gpu_workload(requirements={"minFreeMemoryMiB": 82148}))
    done = run_cli("simulate", "-f", manifest, "--from", fleet(files))
    assert done.code == 1
    assert done.out.startswith("default/train: not placed: 0/1 replica (Best)")
    assert (
        "4 GPUs lack 2,148 MiB of free memory; closest is node-1/GPU-node-1-0 (needs 82,148 MiB, has 80,000 MiB)"
        in done.out
    )
    assert "node-1  2 insufficient memory" in done.out
    assert ["InsufficientFreeMemory", "4", "2"] in [line.split() for line in done.out.splitlines()]


def test_cordoned_devices_are_not_picked_until_the_cordon_ends(files: ObjectFiles) -> None:
    node = idle_node("node-1", 2)
    over = {"uuid": "GPU-node-1-0", "reason": "fan", "until": "2025-12-31T00:00:00Z"}
    cordoned = {"uuid": "GPU-node-1-1", "reason": "riser", "by": "ann"}
    node["spec"] = {"cordoned": [over, cordoned]}

    done = run_cli("simulate", "-f", files.write(gpu_workload(replicas=2)), "--from", files.write(node), "-o", "json")

    (found,) = done.json["workloads"]
    assert [p["devices"] for p in found["placements"]] == [["GPU-node-1-0"]]
    rejected = {r["reason"]: r["devices"] for r in found["explanation"]["ineligibleDevices"]}
    assert rejected == {"Cordoned": 1, "DeviceInUse": 1}


def test_workloads_are_placed_in_order_and_debited(files: ObjectFiles) -> None:
    first, second = gpu_workload("first", replicas=3), gpu_workload("second", replicas=2)
    one = files.write(first, second)
    done = run_cli("simulate", "-f", one, "--from", fleet(files), "-o", "json")
    assert done.code == 1
    placed = [p["devices"] for w in done.json["workloads"] for p in w["placements"]]
    assert len(placed) == 4
    assert len({uuid for devices in placed for uuid in devices}) == 4
    assert [w["placed"] for w in done.json["workloads"]] == [True, False]
    assert [w["source"] for w in done.json["workloads"]] == [f"{one}, document 1", f"{one}, document 2"]
    apart = run_cli(
        "simulate", "-f", files.write(first), "-f", files.write(second), "--from", fleet(files), "-o", "json"
    )
    assert [w["placements"] for w in apart.json["workloads"]] == [w["placements"] for w in done.json["workloads"]]


def test_unplaced_gang_takes_no_device(files: ObjectFiles) -> None:
    gang = gpu_workload("gang", replicas=5, placement={"gang": True})
    manifest = files.write(gang, gpu_workload("next", replicas=4))
    done = run_cli("simulate", "-f", manifest, "--from", fleet(files), "-o", "json")
    first, second = done.json["workloads"]
    assert (first["placements"], first["unplaced"]) == ([], [0, 1, 2, 3, 4])
    assert second["placed"]


def test_items_are_divided_as_by_the_operator(files: ObjectFiles) -> None:
    nodes = files.write(idle_node("node-1", 1), idle_node("node-2", 1, memoryTotalMiB=20000, temperatureCelsius=60))
    spec: dict[str, Any] = {
        "replicas": 2,
        "placement": {"gang": True},
        "distribution": {"items": 10, "mode": "Proportional"},
    }
    done = run_cli("simulate", "-f", files.write(gpu_workload(**spec)), "--from", nodes, "-o", "json")
    (workload,) = done.json["workloads"]
    assert [(p["shardStart"], p["shardEnd"]) for p in workload["placements"]] == [(0, 8), (8, 10)]
    assert workload["unassignedItems"] == 0
    spec["distribution"]["maxPerReplica"] = 3
    done = run_cli("simulate", "-f", files.write(gpu_workload(**spec)), "--from", nodes)
    assert done.code == 0
    assert "[0, 3)" in done.out
    assert "4 items unassigned because of maxPerReplica" in done.out


def test_workload_without_capacity_is_not_placed(files: ObjectFiles) -> None:
    nodes = files.write(idle_node("node-1", 2, memoryTotalMiB=None, memoryUsedMiB=None))
    manifest = files.write(
        gpu_workload(placement={"gang": True}, distribution={"items": 10, "mode": "Proportional"}),
        gpu_workload("next", replicas=2),
    )
    done = run_cli("simulate", "-f", manifest, "--from", nodes, "-o", "json")
    first, second = done.json["workloads"]
    assert (first["placed"], first["placements"], first["unplaced"]) == (False, [], [0])
    assert first["explanation"]["message"] == "all capacities are 0"
    assert second["placed"]


def test_table_shows_items_and_score_once_per_replica(files: ObjectFiles) -> None:
    spec: dict[str, Any] = {"devices": {"count": 2}, "placement": {"gang": True}, "distribution": {"items": 7}}
    done = run_cli("simulate", "-f", files.write(gpu_workload(**spec)), "--from", fleet(files))
    headline, header, first, second = done.out.splitlines()
    assert headline == "default/train: placed: 1/1 replica, 2 GPUs on node-1 (Best, gang)"
    assert " ".join(header.split()) == "REPLICA NODE GPU UUID MODEL ITEMS SCORE MEMORY UTIL TEMP POWER"
    assert first.split()[:4] == ["0", "node-1", "0", "GPU-node-1-0"]
    assert "[0, 7)" in first
    assert second.split() == ["0", "node-1", "1", "GPU-node-1-1", "NVIDIA", "H100", "80GB", "HBM3"]
    assert all(line == line.rstrip() for line in done.out.splitlines())


def test_shares_of_a_device_are_debited_and_shown(files: ObjectFiles) -> None:
    """81,559 MiB hold two parts of 30,000; the third goes to the other device."""
    part = {"mode": "Shared", "memoryMiB": 30_000, "computePercent": 10}
    manifest = files.write(gpu_workload(replicas=3, devices=part, placement={"strategy": "Pack"}))
    done = run_cli("simulate", "-f", manifest, "--from", files.write(idle_node("node-1", 2)))
    assert done.code == 0
    headline = done.out.splitlines()[0]
    words = "default/train: placed: 3/3 replicas, 2 GPUs on node-1 (Pack, 30,000 MiB and 10 % of each)"
    assert headline == words


def test_suspended_workload_is_placed_with_a_note(files: ObjectFiles) -> None:
    done = run_cli("simulate", "-f", files.write(gpu_workload(suspend=True)), "--from", fleet(files))
    assert done.code == 0
    assert "default/train: spec.suspend is true; simulated as if it were false" in done.notes


def test_manifest_and_fleet_may_come_from_stdin(files: ObjectFiles) -> None:
    manifest = files.write(gpu_workload())
    with open(fleet(files), encoding="utf-8") as text:  # noqa: PTH123 - a path as text is what the command gets
        done = run_cli("simulate", "-f", manifest, "--from", "-", stdin=text.read())
    assert done.code == 0
    again = run_cli("simulate", "-f", "-", "--from", "-")
    assert (again.code, again.err) == (2, "error: '-' (stdin) may be given only once\n")


def test_old_sample_is_reported_as_old(files: ObjectFiles) -> None:
    old = gpu("node-1", 0, sampleTime="2025-12-31T23:58:29Z")
    done = run_cli("simulate", "-f", files.write(gpu_workload()), "--from", files.write(telemetry("node-1", old)))
    assert done.code == 1
    assert "node-1/GPU-node-1-0: last sample is older than 90 s (taken 2025-12-31T23:58:29Z)" in done.out
    young = gpu("node-1", 0, sampleTime="2025-12-31T23:58:31Z")
    again = files.write(telemetry("node-1", young))
    assert run_cli("simulate", "-f", files.write(gpu_workload()), "--from", again).code == 0


def test_shares_are_placed_on_a_device_until_it_is_full(files: ObjectFiles) -> None:
    spec: dict[str, Any] = {"devices": {"mode": "Shared", "memoryMiB": 30000, "computePercent": 20}}
    fleet = files.write(idle_node("node-1", 1))
    done = run_cli("simulate", "-f", files.write(gpu_workload(replicas=3, **spec)), "--from", fleet)
    assert done.code == 1
    assert done.out.startswith("default/train: partially placed: 2/3 replicas, 1 GPU on node-1 (Best, 30,000 MiB")
    assert "1 GPU lacks 10,000 MiB of free memory; closest is node-1/GPU-node-1-0 (needs 30,000 MiB, has" in done.out
    whole = files.write(gpu_workload(**spec), gpu_workload("whole"))
    done = run_cli("simulate", "-f", whole, "--from", fleet, "-o", "json")
    shared, rejected = done.json["workloads"]
    assert shared["placed"]
    assert rejected["explanation"]["nearestMiss"]["message"] == "is shared by other pods"


def test_reserved_share_of_a_device_is_debited(files: ObjectFiles) -> None:
    node = idle_node("node-1", 1)
    node["spec"] = {
        "assignments": [
            {
                "workload": "other",
                "workloadUID": "w",
                "replica": 0,
                "replicas": 1,
                "podUID": "u",
                "namespace": "ml",
                "pod": "other-0",
                "container": "main",
                "resource": "gpufleet.dev/gpu-shared",
                "devices": ["GPU-node-1-0"],
                "memoryMiB": 60000,
                "computePercent": 50,
                "decidedAt": "2025-12-31T23:00:00Z",
            }
        ]
    }
    fleet = files.write(node)
    for memory, compute, code in ((20000, 50, 0), (20001, 50, 1), (20000, 51, 1)):
        devices = {"mode": "Shared", "memoryMiB": memory, "computePercent": compute}
        manifest = files.write(gpu_workload(devices=devices))
        assert run_cli("simulate", "-f", manifest, "--from", fleet).code == code
        done = run_cli("rank", "-f", manifest, "--from", fleet, "-o", "json")
        assert len(done.json["devices"]) == 1 - code


def apart(key: str = "kubernetes.io/hostname") -> dict[str, Any]:
    term = {"topologyKey": key, "labelSelector": {"matchLabels": {"gpufleet.dev/workload": "train"}}}
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    return {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "x:1"}], "affinity": affinity}}


def test_replicas_that_must_be_apart_get_a_node_each(files: ObjectFiles) -> None:
    manifest = files.write(gpu_workload(replicas=3, template=apart()))
    done = run_cli("simulate", "-f", manifest, "--from", fleet(files), "-o", "json")
    (workload,) = done.json["workloads"]
    assert sorted(placement["node"] for placement in workload["placements"]) == ["node-1", "node-2"]
    assert workload["explanation"]["ineligibleDevices"] == [
        {"reason": "PodAntiAffinityMismatch", "devices": 4, "nodes": 2}
    ]
    checked = "default/train: host ports, pod affinity and topology spread checked among the workloads only"
    assert any(note.startswith(checked) for note in done.notes)


def test_rules_count_the_pods_on_the_nodes(files: ObjectFiles) -> None:
    nodes = files.write(*(node(name) for name in ("node-1", "node-2")))
    labels = {"gpufleet.dev/workload": "train"}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "other", "namespace": "default", "labels": labels},
        "spec": {"nodeName": "node-1", "containers": [{"name": "main"}]},
    }
    manifest = files.write(gpu_workload(template=apart()))
    arguments = ["--from", fleet(files), "--from", nodes, "--from", files.write(pod), "-o", "json"]
    (workload,) = run_cli("simulate", "-f", manifest, *arguments).json["workloads"]
    assert [placement["node"] for placement in workload["placements"]] == ["node-2"]


def test_what_is_not_checked_is_noted(files: ObjectFiles) -> None:
    template = apart("topology.kubernetes.io/zone")
    template["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    done = run_cli("simulate", "-f", files.write(gpu_workload(template=template)), "--from", fleet(files))
    assert done.code == 0
    assert (
        "default/train: spec.template.spec.volumes[0] (persistentVolumeClaim) not checked: "
        "kube-scheduler may reject a node for it"
    ) in done.notes
    assert "default/train: topology key topology.kubernetes.io/zone not checked: no Nodes known" in done.notes


def test_taints_of_gpu_nodes_are_tolerated_and_others_are_named(files: ObjectFiles) -> None:
    gpu_taint = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
    team = {"key": "team", "value": "a", "effect": "NoSchedule"}
    nodes = files.write(node("node-1", gpu_taint), node("node-2", gpu_taint, team))
    manifest = files.write(gpu_workload(replicas=3))
    done = run_cli("simulate", "-f", manifest, "--from", fleet(files), "--from", nodes, "-o", "json")
    (workload,) = done.json["workloads"]
    assert [placement["node"] for placement in workload["placements"]] == ["node-1", "node-1"]
    assert "2 on a node with untolerated taint team=a:NoSchedule" in workload["explanation"]["message"]


def node(name: str, *taints: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {"taints": list(taints)},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110", "gpufleet.dev/gpu": "2"}},
    }
