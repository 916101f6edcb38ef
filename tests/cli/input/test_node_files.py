"""Labels, taints and capacity are checked when Nodes and Pods are known, and noted as unchecked otherwise."""

from gpufleet_testing.cli.files import JsonObject, ObjectFiles, gpu_workload, idle_node
from gpufleet_testing.cli.runner import run_cli

NIC = "example.com/nic"
UNCHECKED = "CPU, memory, labels and taints of the nodes not checked: no Nodes known"


def node(
    name: str, *, cpu: str = "4", labels: JsonObject | None = None, spec: JsonObject | None = None, nics: int = 0
) -> JsonObject:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": spec or {},
        "status": {"allocatable": {"cpu": cpu, "memory": "16Gi", "pods": "10", NIC: str(nics)}},
    }


def pod(name: str, on: str | None, cpu: str, phase: str = "Running") -> JsonObject:
    spec: JsonObject = {"containers": [{"name": "main", "resources": {"requests": {"cpu": cpu}}}]}
    if on:
        spec["nodeName"] = on
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": spec,
        "status": {"phase": phase},
    }


def asking(files: ObjectFiles, *, nics: int = 0, spec: JsonObject | None = None, **requests: str) -> JsonObject:
    container = {"name": "main", "resources": {"requests": {**requests, NIC: str(nics)}}}
    return gpu_workload(template={"spec": {"restartPolicy": "Always", "containers": [container], **(spec or {})}})


def test_without_nodes_capacity_is_not_checked_with_a_note(files: ObjectFiles) -> None:
    fleet = files.write(idle_node("node-1"))
    manifest = files.write(asking(files, cpu="4000", memory="900Ti", nics=3))
    done = run_cli("simulate", "-f", manifest, "--from", fleet, "-o", "json")
    assert done.code == 0
    assert done.notes.count(UNCHECKED) == done.json["notes"].count(UNCHECKED) == 1


def test_without_nodes_labels_are_not_checked_with_a_note(files: ObjectFiles) -> None:
    fleet = files.write(idle_node("node-1"))
    workload = gpu_workload(requirements={"nodeSelector": {"zone": "a"}})
    for command in ("simulate", "rank", "explain"):
        done = run_cli(command, "-f", files.write(workload), "--from", fleet)
        assert done.code == 0
        assert "default/train: node selector and node affinity not checked: no Nodes known" in done.notes
    nodes = files.write(node("node-1", labels={"zone": "b"}))
    done = run_cli("explain", "-f", files.write(workload), "--from", fleet, "--from", nodes, "-o", "json")
    assert {d["reason"] for d in done.json["devices"]} == {"NodeSelectorMismatch"}
    assert {d["message"] for d in done.json["devices"]} == {"node has label zone=b, needs a"}


def test_capacity_is_allocatable_minus_requests_of_running_pods(files: ObjectFiles) -> None:
    fleet, nodes = files.write(idle_node("node-1")), files.write(node("node-1", cpu="4"))
    manifest = files.write(asking(files, cpu="3"))
    alone = run_cli("simulate", "-f", manifest, "--from", fleet, "--from", nodes)
    assert alone.code == 0
    assert UNCHECKED not in alone.notes
    assert "everything allocatable on a node counts as free: no Pods known" in alone.notes
    pods = files.write(
        pod("a", "node-1", "1500m"),
        pod("done", "node-1", "4", phase="Succeeded"),
        pod("pending", None, "4", phase="Pending"),
        pod("elsewhere", "node-2", "4"),
    )
    full = run_cli("simulate", "-f", manifest, "--from", fleet, "--from", nodes, "--from", pods)
    assert full.code == 1
    assert "lacks 500m of CPU on the node (needs 3,000m, has 2,500m)" in full.out
    assert not any("--from" in note for note in full.notes)


def test_placement_reduces_the_node_capacity(files: ObjectFiles) -> None:
    fleet, nodes = files.write(idle_node("node-1", 4)), files.write(node("node-1", cpu="4"))
    first, second = asking(files, cpu="3"), asking(files, cpu="2")
    second["metadata"] = {"name": "second"}
    done = run_cli("simulate", "-f", files.write(first, second), "--from", fleet, "--from", nodes, "-o", "json")
    assert [w["placed"] for w in done.json["workloads"]] == [True, False]
    assert done.json["workloads"][1]["explanation"]["nearestMiss"]["reason"] == "InsufficientCPU"


def test_taints_cordons_and_extended_resources_count(files: ObjectFiles) -> None:
    fleet = files.write(idle_node("node-1", 1), idle_node("node-2", 1), idle_node("node-3", 1))
    taint = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
    nodes = files.write(
        node("node-1", spec={"taints": [taint]}),
        node("node-2", spec={"unschedulable": True}),
        node("node-3", nics=1),
    )
    arguments = ["--from", fleet, "--from", nodes, "-o", "json"]
    two = run_cli("explain", "-f", files.write(asking(files, nics=2)), *arguments)
    assert [d["reason"] for d in two.json["devices"]] == [
        "TaintNotTolerated",
        "NodeUnschedulable",
        "InsufficientExtendedResource",
    ]
    tolerant = asking(files, spec={"tolerations": [{"key": "gpu", "operator": "Exists"}]})
    assert run_cli("explain", "-f", files.write(tolerant), *arguments).json["devices"][0]["usable"]


def test_telemetry_without_node_is_left_out_with_a_note(files: ObjectFiles) -> None:
    fleet = files.write(idle_node("node-1"), idle_node("gone"))
    done = run_cli("rank", "--from", fleet, "--from", files.write(node("node-1"), node("cpu-only")), "-o", "json")
    assert done.json["devicesConsidered"] == 2
    assert "node gone left out: it has no Node" in done.notes
    none = run_cli("rank", "--from", fleet, "--from", files.write(node("other"), name="nodes.yaml"))
    assert none.code == 2
    assert "none of the Nodes has a GPUTelemetry (these have: node-1, gone)" in none.err


def test_bad_node_and_pod_files_are_bad_input(files: ObjectFiles) -> None:
    fleet, good = files.write(idle_node("node-1")), files.write(node("node-1"))
    cases = [
        (
            ["--from", files.write(node("node-1", cpu="4 cores"))],
            "node-1: cannot be decoded as v1.Node: '4 cores'",
        ),
        (["--from", files.write({**node("node-1"), "status": {}})], "status.allocatable: Required value"),
        (
            ["--from", files.write({**node("node-1"), "status": "x"})],
            'node-1: status: Invalid value: "x": must be',
        ),
        (
            ["--from", files.write(node("node-1"), node("node-1"))],
            'node-1: metadata.name: Duplicate value: "node-1"',
        ),
        (["--from", good, "--from", files.write(pod("a", "node-1", "x"))], "Pod a: cannot be decoded as v1.Pod: 'x'"),
        (
            ["--from", good, "--from", files.write({**pod("a", "n", "1"), "spec": []})],
            "Pod a: spec: Invalid value: []: must be an object",
        ),
    ]
    for arguments, message in cases:
        done = run_cli("rank", "--from", fleet, *arguments)
        assert (done.code, done.out) == (2, ""), arguments
        assert message in done.err
        assert done.err.count("\n") == 1
