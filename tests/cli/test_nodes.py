"""Labels, taints and room of nodes: known with --nodes and --pods, said to be unknown without."""

from typing import Any

UNCHECKED = "room for CPU and memory, labels and taints of the nodes aren't checked: no --nodes file"


def node(name: str, *, cpu: str = "4", labels: Any = None, spec: Any = None, **allocatable: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": spec or {},
        "status": {"allocatable": {"cpu": cpu, "memory": "16Gi", "pods": "10", **allocatable}},
    }


def pod(name: str, on: str | None, cpu: str, phase: str = "Running") -> dict[str, Any]:
    spec: dict[str, Any] = {"containers": [{"name": "main", "resources": {"requests": {"cpu": cpu}}}]}
    if on:
        spec["nodeName"] = on
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": spec,
        "status": {"phase": phase},
    }


def asking(files: Any, *, spec: Any = None, **requests: str) -> dict[str, Any]:
    container = {"name": "main", "resources": {"requests": requests}}
    workload: dict[str, Any] = files.workload(template={"spec": {"containers": [container], **(spec or {})}})
    return workload


def test_without_nodes_there_is_ample_room_and_one_line_says_that_it_is_not_checked(files: Any, gpufleet: Any) -> None:
    fleet = files.write(files.idle("node-1"))
    manifest = files.write(asking(files, cpu="4000", memory="900Ti", **{"example.com/nic": "3"}))
    done = gpufleet("simulate", "-f", manifest, "--fleet", fleet, "-o", "json")
    assert done.code == 0
    assert done.notes.count(UNCHECKED) == done.json["notes"].count(UNCHECKED) == 1


def test_labels_are_not_tested_without_nodes_and_it_says_so(files: Any, gpufleet: Any) -> None:
    fleet = files.write(files.idle("node-1"))
    workload = files.workload(requirements={"nodeSelector": {"zone": "a"}})
    for command in ("simulate", "rank", "explain"):
        done = gpufleet(command, "-f", files.write(workload), "--fleet", fleet)
        assert done.code == 0
        assert "default/train selects nodes by label, which isn't checked: no --nodes file" in done.notes
    nodes = files.write(node("node-1", labels={"zone": "b"}))
    done = gpufleet("explain", "-f", files.write(workload), "--fleet", fleet, "--nodes", nodes, "-o", "json")
    assert {d["reason"] for d in done.json["devices"]} == {"NodeSelectorMismatch"}
    assert {d["message"] for d in done.json["devices"]} == {"its node has zone=b, needs a"}


def test_room_is_what_is_allocatable_minus_what_running_pods_ask_for(files: Any, gpufleet: Any) -> None:
    fleet, nodes = files.write(files.idle("node-1")), files.write(node("node-1", cpu="4"))
    manifest = files.write(asking(files, cpu="3"))
    alone = gpufleet("simulate", "-f", manifest, "--fleet", fleet, "--nodes", nodes)
    assert alone.code == 0
    assert UNCHECKED not in alone.notes
    assert "all that is allocatable on a node counts as free: no --pods file" in alone.notes
    pods = files.write(
        pod("a", "node-1", "1500m"),
        pod("done", "node-1", "4", phase="Succeeded"),
        pod("pending", None, "4", phase="Pending"),
        pod("elsewhere", "node-2", "4"),
    )
    full = gpufleet("simulate", "-f", manifest, "--fleet", fleet, "--nodes", nodes, "--pods", pods)
    assert full.code == 1
    assert "lacks 500m of CPU on its node (needs 3,000m, has 2,500m)" in full.out
    assert not any("--pods" in note for note in full.notes)


def test_each_pick_takes_room_from_the_next(files: Any, gpufleet: Any) -> None:
    fleet, nodes = files.write(files.idle("node-1", 4)), files.write(node("node-1", cpu="4"))
    first, second = asking(files, cpu="3"), asking(files, cpu="2")
    second["metadata"] = {"name": "second"}
    done = gpufleet("simulate", "-f", files.write(first, second), "--fleet", fleet, "--nodes", nodes, "-o", "json")
    assert [w["placed"] for w in done.json["workloads"]] == [True, False]
    assert done.json["workloads"][1]["explanation"]["nearestMiss"]["reason"] == "InsufficientCPU"


def test_taints_cordons_and_extended_resources_count(files: Any, gpufleet: Any) -> None:
    fleet = files.write(files.idle("node-1", 1), files.idle("node-2", 1), files.idle("node-3", 1))
    taint = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
    nodes = files.write(
        node("node-1", spec={"taints": [taint]}),
        node("node-2", spec={"unschedulable": True}),
        node("node-3", **{"example.com/nic": "1"}),
    )
    arguments = ["--fleet", fleet, "--nodes", nodes, "-o", "json"]
    two = gpufleet("explain", "-f", files.write(asking(files, **{"example.com/nic": "2"})), *arguments)
    assert [d["reason"] for d in two.json["devices"]] == [
        "TaintNotTolerated",
        "NodeUnschedulable",
        "InsufficientExtendedResource",
    ]
    tolerant = asking(files, spec={"tolerations": [{"key": "gpu", "operator": "Exists"}]})
    assert gpufleet("explain", "-f", files.write(tolerant), *arguments).json["devices"][0]["usable"]


def test_telemetry_of_a_node_that_is_not_there_is_left_out_with_a_note(files: Any, gpufleet: Any) -> None:
    fleet = files.write(files.idle("node-1"), files.idle("gone"))
    done = gpufleet("rank", "--fleet", fleet, "--nodes", files.write(node("node-1"), node("cpu-only")), "-o", "json")
    assert done.json["devicesConsidered"] == 2
    assert "gone is in no --nodes file: left out, as the operator does without its Node" in done.notes
    nobody = gpufleet("rank", "--fleet", fleet, "--nodes", files.write(node("other"), name="nodes.yaml"))
    assert nobody.code == 2
    assert "nodes.yaml: has none of the fleet's nodes (node-1, gone)" in nobody.err


def test_bad_node_and_pod_files_are_named(files: Any, gpufleet: Any) -> None:
    fleet, good = files.write(files.idle("node-1")), files.write(node("node-1"))
    cases = [
        (["--nodes", files.write(node("node-1", cpu="4 cores"))], "Node node-1: can't be read as a v1.Node: '4 cores'"),
        (["--nodes", files.write({**node("node-1"), "status": {}})], "status.allocatable: is missing"),
        (["--nodes", files.write({**node("node-1"), "status": "x"})], "Node node-1: status: must be an object"),
        (["--nodes", files.write(node("node-1"), node("node-1"))], "Node node-1: metadata.name: stands twice"),
        (["--nodes", fleet], "a Node of v1 is expected (got GPUTelemetry of gpufleet.dev/v1alpha1)"),
        (["--nodes", good, "--pods", good], "a Pod of v1 is expected (got Node of v1)"),
        (["--nodes", good, "--pods", files.write(pod("a", "node-1", "x"))], "Pod a: can't be read as a v1.Pod: 'x'"),
        (
            ["--nodes", good, "--pods", files.write({**pod("a", "n", "1"), "spec": []})],
            "Pod a: spec: must be an object",
        ),
        (["--pods", good], "--pods needs --nodes"),
    ]
    for arguments, message in cases:
        done = gpufleet("rank", "--fleet", fleet, *arguments)
        assert (done.code, done.out) == (2, ""), arguments
        assert message in done.err
        assert done.err.count("\n") == 1
