"""The agent with transport DRA, with the kubelet's side on real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gpufleet_agent.agent import Agent
from gpufleet_agent.devices.base import DeviceInfo, DeviceLostError
from gpufleet_agent.dra import driver
from gpufleet_agent.dra.server import DriverSockets
from gpufleet_agent.plugin.inject.device_files import DeviceFiles
from gpufleet_agent.plugin.inject.strategies import DeviceListStrategy, InjectorSettings
from gpufleet_agent.podresources.listing import ContainerKey
from gpufleet_agent.proto import dra_health_pb2 as health_pb
from gpufleet_api.names import DRA_DRIVER, Transport
from gpufleet_testing.agent.agents import IdleGpus, make_agent, running_agent
from gpufleet_testing.agent.dra import DraKubelet, DraObjectApi, claim
from gpufleet_testing.agent.kubelet import FakeKubelet
from gpufleet_testing.agent.objects import assignment
from gpufleet_testing.agent.sampling import until

ENVVAR = DeviceListStrategy.ENVVAR


@dataclass
class DraRig:
    agent: Agent
    api: DraObjectApi
    hardware: IdleGpus
    kubelet: DraKubelet
    cdi: Path

    def cdi_file(self, uid: str) -> Any:
        """The content of a claim's CDI file."""
        return json.loads((self.cdi / f"{DRA_DRIVER}-claim-{uid}.json").read_text())


@asynccontextmanager
async def running(
    kubelet: FakeKubelet,
    strategy: DeviceListStrategy = ENVVAR,
    *,
    infos: tuple[DeviceInfo, ...] | None = None,
    pass_device_specs: bool = False,
    container_mounts: tuple[tuple[Path, Path], ...] = (),
    driver_root: Path = Path("/"),
) -> AsyncIterator[DraRig]:
    folder = kubelet.directory
    (folder / "registry").mkdir(exist_ok=True)
    sockets = DriverSockets(folder / "plugins", folder / "registry")
    api, hardware = DraObjectApi(), IdleGpus()
    hardware.infos = hardware.infos if infos is None else infos
    agent = make_agent(
        kubelet,
        api,
        hardware,
        transport=Transport.DRA,
        plugins_dir=sockets.plugins_dir,
        plugins_registry_dir=sockets.registry_dir,
        injection=InjectorSettings(
            strategies=frozenset({strategy}),
            pass_device_specs=pass_device_specs,
            driver_root=driver_root,
            cdi_root=folder / "cdi",
            container_mounts=container_mounts,
        ),
    )
    async with kubelet, running_agent(agent), DraKubelet(sockets) as dra:
        yield DraRig(agent, api, hardware, dra, folder / "cdi")


async def test_driver_registers_with_both_services_and_no_device_plugin(kubelet: FakeKubelet) -> None:
    async with running(kubelet) as one:
        await one.api.until_slice(1)
        assert one.agent.plugins.unregistered() == [DRA_DRIVER]
        info = await one.kubelet.register()
        assert (info.type, info.name) == ("DRAPlugin", DRA_DRIVER)
        assert info.endpoint == str(one.kubelet.sockets.driver)
        assert list(info.supported_versions) == ["v1.DRAPlugin", "v1alpha1.DRAResourceHealth"]
        assert one.agent.plugins.unregistered() == []
        assert kubelet.registrations == []
    assert not one.kubelet.sockets.registration.exists()
    assert not one.kubelet.sockets.driver.exists()


async def test_slice_lists_the_devices_and_taints_a_lost_one(kubelet: FakeKubelet) -> None:
    async with running(kubelet) as one:
        devices = (await one.api.until_slice(1))["devices"]
        assert [each["attributes"]["uuid"]["string"] for each in devices] == [f"GPU-{index}" for index in range(4)]
        one.hardware.on_read = _lost
        while len((await one.api.until_slice(one.api.applied + 1))["devices"][0]["taints"]) == 1:
            pass


async def test_claim_gets_devices_and_the_status_lists_the_holder(kubelet: FakeKubelet) -> None:
    one_claim = claim("a", "GPU-2", memory_mib=1000)
    async with running(kubelet) as one:
        await one.kubelet.register()
        await one.api.reserve(assignment("a", "GPU-2", resource=DRA_DRIVER, memory_mib=1000))
        one.api.add(one_claim)
        (result,) = (await one.kubelet.prepare(one_claim)).values()
        assert result.error == ""
        (device,) = result.devices
        assert (list(device.request_names), device.pool_name, device.device_name) == (["gpu"], "node-1", "gpu-2")
        assert device.share_id == "share-GPU-2"
        assert list(device.cdi_device_ids) == [f"gpufleet.dev/claim={one_claim.uid}-0-GPU-2"]
        assert len(list(one.cdi.glob("*.json"))) == 1
        unprepared = await one.kubelet.unprepare(one_claim)
        assert [each.error for each in unprepared.values()] == [""]
        assert list(one.cdi.iterdir()) == []


async def test_partition_is_claimed_with_its_own_nodes(kubelet: FakeKubelet) -> None:
    nodes = ("/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap30")
    for path in nodes:
        host = kubelet.directory / path.lstrip("/")
        host.parent.mkdir(parents=True, exist_ok=True)
        host.touch()
    partition = DeviceInfo(
        "MIG-a", 0, "NVIDIA H100", memory_total_mib=10_000, nodes=nodes, parent="GPU-0", profile="1g.10gb"
    )
    one_claim = claim("a", "MIG-a")
    strategy = DeviceListStrategy.CDI_CRI
    async with running(kubelet, strategy, infos=(partition,), driver_root=kubelet.directory) as one:
        (listed,) = (await one.api.until_slice(1))["devices"]
        assert (listed["name"], listed["attributes"]["migProfile"]) == ("mig-a", {"string": "1g.10gb"})
        await one.kubelet.register()
        await one.api.reserve(assignment("a", "MIG-a", resource=DRA_DRIVER))
        one.api.add(one_claim)
        (result,) = (await one.kubelet.prepare(one_claim)).values()
        assert result.error == ""
        (edits,) = [device["containerEdits"] for device in one.cdi_file(one_claim.uid)["devices"]]
        assert [node["path"] for node in edits["deviceNodes"]] == list(nodes)
        assert "GPUFLEET_DEVICES=MIG-a" in edits["env"]


async def test_container_without_nvidias_runtime_gets_nodes_and_mounts(kubelet: FakeKubelet) -> None:
    """As on GKE: the device plugin passes device nodes and the driver's directory to the kubelet."""
    (kubelet.directory / "dev").mkdir()
    for index in range(4):
        (kubelet.directory / "dev" / f"nvidia{index}").touch()
    one_claim = claim("a", "GPU-2")
    mounts = ((Path("/home/kubernetes/bin/nvidia"), Path("/usr/local/nvidia")),)
    async with running(kubelet, pass_device_specs=True, container_mounts=mounts, driver_root=kubelet.directory) as one:
        await one.kubelet.register()
        one.api.add(one_claim)
        await one.kubelet.prepare(one_claim)
        spec = one.cdi_file(one_claim.uid)
        (edits,) = [device["containerEdits"] for device in spec["devices"]]
        assert [node["path"] for node in edits["deviceNodes"]] == ["/dev/nvidia2"]
        assert "NVIDIA_VISIBLE_DEVICES=GPU-2" in edits["env"]
        assert [mount["containerPath"] for mount in spec["containerEdits"]["mounts"]] == ["/usr/local/nvidia"]


async def test_runtime_that_reads_mounts_finds_the_devices_there(kubelet: FakeKubelet) -> None:
    """As on Bottlerocket."""
    one_claim = claim("a", "GPU-2")
    async with running(kubelet, DeviceListStrategy.VOLUME_MOUNTS) as one:
        await one.kubelet.register()
        one.api.add(one_claim)
        await one.kubelet.prepare(one_claim)
        (edits,) = [device["containerEdits"] for device in one.cdi_file(one_claim.uid)["devices"]]
        assert "NVIDIA_VISIBLE_DEVICES=/var/run/nvidia-container-devices" in edits["env"]
        assert [mount["containerPath"] for mount in edits["mounts"]] == ["/var/run/nvidia-container-devices/GPU-2"]


async def test_device_of_another_plugin_is_not_prepared_before_it_is_free(kubelet: FakeKubelet) -> None:
    one_claim, key = claim("a", "GPU-2"), ContainerKey("ml", "plain", "main")
    kubelet.pods[key], kubelet.resources[key] = frozenset({"GPU-2"}), "nvidia.com/gpu"
    async with running(kubelet) as one:
        await one.kubelet.register()
        await one.api.until(lambda status: any(device.get("allocatedTo") for device in status["devices"]))
        one.api.add(one_claim)
        waiting = asyncio.create_task(one.kubelet.prepare(one_claim))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        del kubelet.pods[key]
        (result,) = (await waiting).values()
        assert result.error == ""


async def test_claim_that_the_kubelet_lists_without_files_is_restored(
    kubelet: FakeKubelet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "CHECK_SECONDS", 0.05)
    one_claim = claim("a", "GPU-2")
    kubelet.claim(ContainerKey("ml", "a", "main"), (one_claim.namespace, one_claim.name), ("node-1", "gpu-2"))
    async with running(kubelet) as one:
        one.api.add(one_claim)
        await until(lambda: any(one.cdi.glob("*.json")))
        assert "GPUFLEET_DEVICES=GPU-2" in one.cdi_file(one_claim.uid)["devices"][0]["containerEdits"]["env"]


async def test_claim_that_does_not_exist_is_an_error_of_that_claim(kubelet: FakeKubelet) -> None:
    good, bad = claim("a", "GPU-2"), claim("b", "GPU-1")
    async with running(kubelet) as one:
        await one.kubelet.register()
        one.api.add(good)
        results = await one.kubelet.prepare(good, bad)
        assert results[bad.uid].error == "claim ml/claim-b does not exist"
        assert len(results[good.uid].devices) == 1


async def test_health_stream_shows_a_fault(kubelet: FakeKubelet) -> None:
    async with running(kubelet) as one, asyncio.timeout(10):
        await one.kubelet.register()
        messages = await one.kubelet.health()
        first = await messages.get()
        assert {each.health for each in first.devices} == {health_pb.HEALTHY}
        assert [each.device.device_name for each in first.devices] == [f"gpu-{index}" for index in range(4)]
        one.hardware.on_read = _lost
        while (latest := await messages.get()).devices[0].health != health_pb.UNHEALTHY:
            pass
        assert latest.devices[0].message.startswith("DeviceLost: ")


async def test_lost_socket_is_served_again(kubelet: FakeKubelet) -> None:
    async with running(kubelet) as one:
        await one.kubelet.register()
        one.kubelet.sockets.registration.unlink()
        assert (await one.kubelet.register()).name == DRA_DRIVER


async def test_node_without_devices_is_ready_without_a_slice(kubelet: FakeKubelet) -> None:
    async with running(kubelet, infos=()) as one:
        await one.kubelet.register()
        assert one.agent.plugins.unregistered() == []
        assert one.api.applied == 0


async def test_devices_are_withheld_until_the_driver_is_registered(kubelet: FakeKubelet) -> None:
    async with running(kubelet) as one:
        reason = "the DRA driver is not registered with the kubelet"
        await until(lambda: set(one.agent.plugins.withheld().values()) == {reason})
        await one.kubelet.register()
        await until(lambda: not one.agent.plugins.withheld())
        status = await one.api.until(lambda status: len(status["devices"]) == 4)
        assert status["transport"] == "DRA"


async def test_devices_are_withheld_with_the_error_of_the_file_system(
    kubelet: FakeKubelet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> tuple[()]:
        raise OSError("disk fails")

    monkeypatch.setattr(DeviceFiles, "_existing", fail)
    async with running(kubelet, DeviceListStrategy.CDI_CRI) as one:
        await one.kubelet.register()
        await until(lambda: set(one.agent.plugins.withheld().values()) == {"disk fails"})


def _lost(uuid: str) -> Any:
    raise DeviceLostError(uuid, "GPU is lost")
