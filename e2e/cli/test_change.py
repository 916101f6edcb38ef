"""`kubectl gpufleet` takes GPUs out of service, ends faults, stops workloads, and saves what a bug report needs."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from gpufleet_e2e.support.api import TELEMETRY
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import IMAGE, gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.programs.command_line import CommandLine
from gpufleet_e2e.support.sandbox import READY_SECONDS, TestNamespace

SOON_SECONDS = 20


@pytest.fixture
def node(fleet: Fleet) -> Iterator[str]:
    """The smaller node; at the end all of its devices are in service."""
    name = fleet.nodes[1]
    yield name
    fleet.api.patch(f"{TELEMETRY}/{name}", {"spec": {"cordoned": []}})


def test_gpu_is_drained_simulated_and_returned(
    namespace: TestNamespace, fleet: Fleet, cli: CommandLine, node: str, tmp_path: Path
) -> None:
    workload = gpuworkload("serves", node=node)
    namespace.apply(workload)
    (uuid,) = namespace.devices("serves")
    drained = cli.run("drain", uuid, "--reason", "fan, ticket 4711", "--by", "ann", "--timeout", "60")
    print(drained.out)
    assert drained.code == 0, drained
    assert drained.out.splitlines()[-1].endswith(f"{uuid} drained")
    assert namespace.devices("serves") != (uuid,)

    file = tmp_path / "on-it.yaml"
    file.write_text(yaml.safe_dump(gpuworkload("on-it", uuids=(uuid,))))
    refused = cli.run("simulate", "-f", file)
    assert refused.code == 1
    assert "1 cordoned" in refused.out
    assert "uncordoned" in cli.run("uncordon", uuid).out
    eventually(lambda: _placed(cli, file), within=SOON_SECONDS)


def _placed(cli: CommandLine, file: Path) -> None:
    done = cli.run("simulate", "-f", file)
    assert done.code == 0, done


def test_other_kinds_are_simulated_and_converted_to_what_runs(namespace: TestNamespace, cli: CommandLine) -> None:
    main = {"name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "1000000"]}
    pod = {"terminationGracePeriodSeconds": 1, "containers": [{**main, "resources": {"limits": {"nvidia.com/gpu": 1}}}]}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace.name},
        "spec": {"replicas": 2, "template": {"metadata": {"labels": {"app": "web"}}, "spec": pod}},
    }
    text = json.dumps(deployment)
    simulated = cli.run("simulate", "-f", "-", stdin=text)
    assert (simulated.code, "placed: 2/2 replicas" in simulated.out) == (0, True), simulated
    converted = cli.run("convert", "-f", "-", stdin=text)
    assert converted.code == 0
    namespace.apply(yaml.safe_load(converted.out))
    namespace.verify("web")


def test_fault_is_acknowledged_and_workload_suspended(
    namespace: TestNamespace, fleet: Fleet, cli: CommandLine, node: str
) -> None:
    uuid = fleet.gpus[node].uuids[3]
    fleet.gpus[node].xid(uuid, 79)
    eventually(lambda: _state(cli, node, uuid, "XidError"), within=SOON_SECONDS)
    acknowledged = cli.run("acknowledge", node, "3")
    assert "XidError" in acknowledged.out, acknowledged
    eventually(lambda: _state(cli, node, uuid, "Free"), within=SOON_SECONDS)

    namespace.apply(gpuworkload("train", node=node))
    namespace.wait_ready("train")
    assert cli.run("suspend", "train", "-n", namespace.name).out.endswith("train suspended\n")
    namespace.wait_condition("train", "Suspended", "True", "Suspended", within=READY_SECONDS)
    assert cli.run("resume", f"{namespace.name}/train").code == 0
    namespace.wait_ready("train")


def _state(cli: CommandLine, node: str, uuid: str, state: str) -> None:
    found = {one["uuid"]: one["state"] for one in cli.run("top", node, "-o", "json").json}
    assert found[uuid] == state, found[uuid]


def test_snapshot_is_a_fleet_for_other_commands(
    namespace: TestNamespace, fleet: Fleet, cli: CommandLine, tmp_path: Path
) -> None:
    namespace.apply(gpuworkload("train"))
    (uuid,) = namespace.devices("train")
    folder = tmp_path / "state"
    saved = cli.run("snapshot", "save", folder)
    print(saved.out)
    assert saved.code == 0, saved
    assert "logs of 3 pods" in saved.out
    assert '"event":' in next(folder.glob("gpufleet-operator-*.log")).read_text()
    (holding,) = cli.run("who", uuid, "--from", folder, "-o", "json").json
    assert holding["pods"][0]["workload"] == "train"
    shown = cli.run("snapshot", "show", folder)
    assert "24 GPUs on 2 nodes" in shown.out
    assert cli.run("doctor", "--from", folder).code == 0
