"""With a CDI strategy the container runtime itself adds the devices to containers."""

import json
from collections.abc import Iterator
from pathlib import PurePosixPath

import pytest

from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

DRIVER = PurePosixPath("/opt/gpufleet/driver")
"""The driver's root inside the nodes."""

FILE = "/run/cdi/gpufleet.dev-gpu.json"
NVIDIA = 195
"""Major number of the driver's device nodes. Without that driver they exist but cannot be opened."""

CONTROL = 255
"""Minor number of nvidiactl."""


@pytest.fixture
def cdi(fleet: Fleet) -> Iterator[None]:
    """Every agent writes CDI files, and every node has the device nodes that a driver would create."""
    for node in fleet.cluster.nodes:
        names = [(f"nvidia{index}", index) for index in range(len(fleet.gpus[node.name].uuids))]
        script = [f"mkdir {DRIVER}/dev"]
        script += [f"mknod {DRIVER}/dev/{name} c {NVIDIA} {minor}" for name, minor in [*names, ("nvidiactl", CONTROL)]]
        node.run(["sh", "-ec", "; ".join(script)])
    fleet.install(agent={"deviceListStrategies": ["cdi-cri"], "cdi": {"root": "/run/cdi"}, "driverRoot": str(DRIVER)})
    yield
    fleet.install()
    for node in fleet.cluster.nodes:
        node.run(["rm", "-r", f"{DRIVER}/dev"])
        assert node.run(["test", "-e", FILE], check=False).returncode == 1, "the agent left its CDI file behind"


def test_container_gets_the_device_nodes_of_its_devices(namespace: TestNamespace, fleet: Fleet, cdi: None) -> None:
    """Mechanism: Allocate returns CDI names, which containerd looks up in the file that the agent wrote.

    The kubelet gets neither device nodes nor NVIDIA_VISIBLE_DEVICES, so both can only come from that file.
    """
    node = fleet.nodes[0]
    uuids = fleet.gpus[node].uuids
    picked = (uuids[2], uuids[7])
    namespace.apply(gpuworkload("cdi", count=2, node=node, uuids=picked))
    pod = eventually(lambda: _running(namespace), within=40)
    file = json.loads(fleet.node(node).run(["cat", FILE]).stdout)
    assert [device["name"] for device in file["devices"]] == list(uuids)
    shown = fleet.cluster.kubectl("exec", f"--namespace={namespace.name}", pod, "--", "sh", "-c", "ls /dev; env").stdout
    lines = shown.split()
    assert [line for line in lines if line.startswith("nvidia")] == ["nvidia2", "nvidia7", "nvidiactl"]
    assert "NVIDIA_VISIBLE_DEVICES=void" in lines
    assert f"GPUFLEET_DEVICES={','.join(picked)}" in lines
    print(f"{pod} has {', '.join(picked)} as nvidia2 and nvidia7")


def _running(namespace: TestNamespace) -> str:
    pod = namespace.pod("cdi")
    statuses = pod["status"].get("containerStatuses", [])
    assert statuses, namespace.describe("cdi")
    assert "running" in statuses[0]["state"], statuses[0]["state"]
    return str(pod["metadata"]["name"])
