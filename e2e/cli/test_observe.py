"""`kubectl gpufleet` shows what the cluster has: with any credential, and with names to complete."""

import base64
import json
from pathlib import Path
from time import monotonic
from typing import Any

import yaml

from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import IDLE, container, gpuworkload, pod_spec
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.programs.command_line import CommandLine
from gpufleet_e2e.support.sandbox import TestNamespace

TALKS = ("sh", "-c", f'echo "on $GPUFLEET_DEVICES"; {IDLE}')
SOON_SECONDS = 20


def test_running_and_waiting_workloads_are_shown(namespace: TestNamespace, fleet: Fleet, cli: CommandLine) -> None:
    node, space = fleet.nodes[1], namespace.name
    namespace.apply(gpuworkload("train", node=node, template=pod_spec(container(command=TALKS))))
    (uuid,) = namespace.devices("train")
    pod = namespace.pod("train")["metadata"]["name"]
    namespace.apply(gpuworkload("waits", uuids=(uuid,)))
    eventually(lambda: _reason(namespace, "waits", "WaitingForDevices"), within=SOON_SECONDS)

    begun = monotonic()
    gpus = {one["uuid"]: one for one in eventually(lambda: _top(cli, uuid), within=SOON_SECONDS)}
    print(f"top: {monotonic() - begun:.2f} s")
    assert len(gpus) == sum(len(one.uuids) for one in fleet.gpus.values())
    assert [(use["namespace"], use["pod"], use["workload"]) for use in gpus[uuid]["pods"]] == [(space, pod, "train")]
    assert f"{space}/{pod}" in cli.run("top", node).out

    tree = cli.run("status", "train", "-n", space).out
    print(tree)
    assert f"pod {pod}: Running, main: running" in tree
    assert uuid in tree
    assert "Ready is True, AllReplicasReady" in tree

    why = cli.run("explain", f"{space}/waits").out
    print(why)
    assert "Ready is False, WaitingForDevices: 0/" in why
    assert "Why these devices" in cli.run("explain", pod, "-n", space).out

    (row,) = cli.run("who", uuid, "--no-headers").out.splitlines()
    assert [part in row for part in (node, pod, "train", "whole")] == [True] * 4
    assert cli.run("who", pod, "-n", space, "-o", "json").json[0]["uuid"] == uuid
    eventually(lambda: _logged(cli, space, uuid), within=SOON_SECONDS)


def _reason(namespace: TestNamespace, name: str, reason: str) -> None:
    conditions = namespace.workload(name).get("status", {}).get("conditions", [])
    assert any((one["type"], one["reason"]) == ("Ready", reason) for one in conditions), namespace.describe(name)


def _top(cli: CommandLine, uuid: str) -> Any:
    found = cli.run("top", "-o", "json").json
    assert [one["state"] for one in found if one["uuid"] == uuid] == ["InUse"]
    return found


def _logged(cli: CommandLine, namespace: str, uuid: str) -> None:
    done = cli.run("logs", "train", "-n", namespace)
    assert done.out == f"on {uuid}\n", done


def test_top_of_sixteen_gpus_takes_less_than_a_second(cli: CommandLine, fleet: Fleet) -> None:
    """The processor time of kubectl, of the plugin and of its kubectl: the elapsed time depends on what else runs."""
    assert len(cli.run("top", fleet.nodes[0], "-o", "name").out.split()) == 16
    taken = [cli.cpu_seconds("top", fleet.nodes[0]) for _ in range(3)]
    print(f"processor time of top: {', '.join(f'{one:.2f} s' for one in taken)}")
    assert min(taken) < 1


def test_credentials_of_an_exec_plugin_and_impersonation_work(cli: CommandLine, fleet: Fleet, tmp_path: Path) -> None:
    """Mechanism: the plugin prints the administrator's certificate, as those of EKS, GKE and AKS print a token."""
    kubeconfig = yaml.safe_load(fleet.cluster.kubeconfig.read_text())
    user = kubeconfig["users"][0]
    certificate, key = (_decoded(user["user"][f"client-{name}-data"]) for name in ("certificate", "key"))
    version = "client.authentication.k8s.io/v1"
    status = {"clientCertificateData": certificate, "clientKeyData": key}
    credential = tmp_path / "credential.json"
    credential.write_text(json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status}))
    user["user"] = {
        "exec": {"apiVersion": version, "command": "cat", "args": [str(credential)], "interactiveMode": "Never"}
    }
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(kubeconfig))
    named = cli.run("top", "--kubeconfig", file, "-o", "name")
    assert (named.code, len(named.out.split())) == (0, sum(len(one.uuids) for one in fleet.gpus.values())), named
    dev = cli.run("top", "--as", "dev")
    assert (dev.code, dev.out) == (2, "")
    assert 'User "dev" cannot list resource "gputelemetries"' in dev.err
    assert "ask an administrator" in dev.err


def _decoded(data: str) -> str:
    return base64.b64decode(data).decode()


def test_names_are_completed_and_versions_of_the_cluster_shown(
    namespace: TestNamespace, cli: CommandLine, fleet: Fleet
) -> None:
    namespace.apply(gpuworkload("train", suspend=True))
    completed = cli.kubectl("__complete", "gpufleet", "status", "-n", namespace.name, "tr")
    assert completed.out.splitlines()[0] == "train", completed
    nodes = cli.kubectl("__complete", "gpufleet", "top", "")
    assert nodes.out.split()[:-1] == sorted(fleet.nodes)
    done = cli.run("--version")
    print(done.out)
    assert done.code == 0
    lines = dict(line.split(" ", 1) for line in done.out.splitlines())
    assert lines["agents"] == f"{lines['gpufleet']} (2 nodes)"
    assert lines["operator"] == f"{lines['gpufleet']} (1 deployment)"
    assert lines["kubernetes"].startswith("v1.")
