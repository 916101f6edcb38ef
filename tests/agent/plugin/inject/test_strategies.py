"""Device list strategies: as plain answers, and against a scripted kubelet over real unix sockets."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from gpufleet_agent.plugin.inject.strategies import DeviceInjector, DeviceListStrategy, InjectorSettings
from gpufleet_agent.plugin.types import AdvertisedDevice
from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_testing.agent.kubelet import FakeKubelet
from gpufleet_testing.agent.plugins import injection_settings, make_driver, serving_plugin

ENVVAR, CRI, ANNOTATIONS = DeviceListStrategy.ENVVAR, DeviceListStrategy.CDI_CRI, DeviceListStrategy.CDI_ANNOTATIONS
DEVICES = tuple(
    AdvertisedDevice(
        f"GPU-{index}", index, healthy=True, nodes=(f"/dev/nvidia{index}", "/dev/nvidiactl", "/dev/nvidia-uvm")
    )
    for index in range(3)
)
Configure = Callable[..., InjectorSettings]


def cdi_files(folder: Path) -> list[Path]:
    return list(folder.glob("cdi/*"))


def written(folder: Path) -> list[str]:
    """Names of the devices in the CDI file."""
    text = (folder / "cdi" / "gpufleet.dev-gpu.json").read_text(encoding="utf-8")
    return [device["name"] for device in json.loads(text)["devices"]]


async def prepared(settings: InjectorSettings) -> DeviceInjector:
    """One that has looked at the nodes of DEVICES."""
    injection = DeviceInjector(settings, lambda: DEVICES, VersionSignal())
    await injection.prepare()
    await injection.close()
    return injection


NAMES = ["gpufleet.dev/gpu=GPU-0", "gpufleet.dev/gpu=GPU-1"]
ENV = {"NVIDIA_VISIBLE_DEVICES": "GPU-0,GPU-1"}
ANNOTATION = {"cdi.k8s.io/gpufleet_GPU-0": ",".join(NAMES)}


@pytest.mark.parametrize(
    ("strategies", "envs", "names", "annotations"),
    [
        ((ENVVAR,), ENV, [], {}),
        ((CRI,), {}, NAMES, {}),
        ((ANNOTATIONS,), {}, [], ANNOTATION),
        ((ENVVAR, CRI, ANNOTATIONS), ENV, NAMES, ANNOTATION),
    ],
)
def test_each_strategy_fills_its_own_field(
    strategies: tuple[DeviceListStrategy, ...],
    envs: dict[str, str],
    names: list[str],
    annotations: dict[str, str],
    tmp_path: Path,
) -> None:
    answer = DeviceInjector(injection_settings(tmp_path, *strategies), lambda: DEVICES, VersionSignal()).response(
        ("GPU-0", "GPU-1")
    )
    assert dict(answer.envs) == envs
    assert [device.name for device in answer.cdi_devices] == names
    assert dict(answer.annotations) == annotations
    assert not answer.devices
    assert not answer.mounts


def test_volume_mounts_name_devices_without_the_variable(tmp_path: Path) -> None:
    settings = injection_settings(tmp_path, DeviceListStrategy.VOLUME_MOUNTS)
    answer = DeviceInjector(settings, lambda: DEVICES, VersionSignal()).response(("GPU-0", "GPU-2"))
    assert dict(answer.envs) == {"NVIDIA_VISIBLE_DEVICES": "/var/run/nvidia-container-devices"}
    assert [(mount.host_path, mount.container_path, mount.read_only) for mount in answer.mounts] == [
        ("/dev/null", f"/var/run/nvidia-container-devices/{uuid}", True) for uuid in ("GPU-0", "GPU-2")
    ]


def test_directories_of_the_driver_are_mounted_read_only(tmp_path: Path) -> None:
    mounts = ((Path("/home/kubernetes/bin/nvidia"), Path("/usr/local/nvidia")),)
    settings = injection_settings(tmp_path, ENVVAR, container_mounts=mounts)
    (mount,) = DeviceInjector(settings, lambda: DEVICES, VersionSignal()).response(("GPU-0",)).mounts
    assert (mount.host_path, mount.container_path) == ("/home/kubernetes/bin/nvidia", "/usr/local/nvidia")
    assert mount.read_only


async def test_device_specs_are_the_nodes_that_exist_and_common_ones_come_once(tmp_path: Path) -> None:
    injection = await prepared(injection_settings(tmp_path, ENVVAR, pass_device_specs=True))
    specs = injection.response(("GPU-0", "GPU-1")).devices
    root = tmp_path / "driver"
    assert [(spec.container_path, spec.host_path, spec.permissions) for spec in specs] == [
        (path, f"{root}{path}", "rw") for path in ("/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia1")
    ]


@pytest.mark.parametrize(
    ("strategies", "kind", "written"),
    [
        ((ENVVAR,), "gpufleet.dev/gpu", False),
        ((CRI,), "gpufleet.dev/gpu", True),
        ((ANNOTATIONS,), "gpufleet.dev/gpu", True),
        ((CRI,), "nvidia.com/gpu", False),
    ],
)
async def test_agent_writes_the_file_only_with_cdi_and_its_own_kind(
    strategies: tuple[DeviceListStrategy, ...], kind: str, written: bool, tmp_path: Path
) -> None:
    settings = injection_settings(tmp_path, *strategies, cdi_kind=kind)
    injection = DeviceInjector(settings, lambda: DEVICES, VersionSignal())
    await injection.prepare()
    assert (tmp_path / "cdi").exists() is written
    await injection.close()
    assert cdi_files(tmp_path) == []
    names = [device.name for device in injection.response(("GPU-1",)).cdi_devices]
    assert names == ([f"{kind}=GPU-1"] if CRI in strategies else [])


async def test_the_kubelet_hears_of_a_device_only_when_the_runtime_can_look_it_up(
    kubelet: FakeKubelet, tmp_path: Path
) -> None:
    async with serving_plugin(kubelet, injection=injection_settings(tmp_path, CRI)) as rig:
        assert written(tmp_path) == [f"GPU-{index}" for index in range(8)]
        rig.advertise(*rig.devices, AdvertisedDevice("GPU-8", 8, healthy=True, nodes=("/dev/nvidia8",)))
        await kubelet.until(lambda: len(kubelet.plugins["gpufleet.dev/gpu"].healthy) == 9)
        assert written(tmp_path)[-1] == "GPU-8"
        assert await kubelet.admit("bare", 2) == {"GPU-0", "GPU-1"}
        assert [device.name for device in kubelet.responses[-1].cdi_devices] == NAMES
        assert not kubelet.responses[-1].envs


async def test_a_file_that_was_taken_away_is_back_before_a_container_needs_it(
    kubelet: FakeKubelet, tmp_path: Path
) -> None:
    async with serving_plugin(kubelet, injection=injection_settings(tmp_path, CRI)):
        file = tmp_path / "cdi" / "gpufleet.dev-gpu.json"
        file.unlink()
        await kubelet.admit("bare", 1)
        assert len(written(tmp_path)) == 8


async def test_device_without_node_is_logged_once_and_not_offered(kubelet: FakeKubelet, tmp_path: Path) -> None:

    with structlog.testing.capture_logs() as events:
        node = make_driver(tmp_path) / "dev" / "nvidia0"
        node.unlink()
        async with serving_plugin(kubelet, injection=injection_settings(tmp_path, CRI)):
            plugin = kubelet.plugins["gpufleet.dev/gpu"]
            assert "GPU-0" not in plugin.healthy
            assert len(plugin.healthy) == 7
            assert "GPU-0" not in written(tmp_path)
            assert await kubelet.admit("first", 1) == {"GPU-1"}
            node.touch()
            await kubelet.until(lambda: "GPU-0" in plugin.healthy)
            assert written(tmp_path)[0] == "GPU-0"
            assert await kubelet.admit("second", 1) == {"GPU-0"}
    warnings = [event for event in events if event["event"] == "device node missing, devices not offered"]
    assert [event["devices"] for event in warnings] == [["GPU-0"]]


@pytest.mark.parametrize("strategy", [ENVVAR, CRI])
async def test_common_nodes_alone_make_no_device(strategy: DeviceListStrategy, tmp_path: Path) -> None:
    (make_driver(tmp_path) / "dev" / "nvidia0").unlink()
    injection = await prepared(injection_settings(tmp_path, strategy, pass_device_specs=True))
    assert injection.nodes("GPU-0") == ()
    assert len(injection.nodes("GPU-1")) == 2
    healthy = [device.uuid for device in injection.usable(DEVICES) if device.healthy]
    assert healthy == (["GPU-1", "GPU-2"] if strategy is CRI else ["GPU-0", "GPU-1", "GPU-2"])


async def test_unwritable_file_rejects_pods_and_withholds_devices_until_written(
    kubelet: FakeKubelet, tmp_path: Path
) -> None:
    async with serving_plugin(kubelet, injection=injection_settings(tmp_path, CRI)) as rig:
        plugin = kubelet.plugins["gpufleet.dev/gpu"]
        (tmp_path / "cdi").rename(tmp_path / "away")
        (tmp_path / "cdi").touch()
        with pytest.raises(Exception, match="DeviceFilesNotReady: cannot write the CDI file"):
            await kubelet.admit("bare", 1)
        assert rig.count("gpufleet_agent_allocations_total", outcome="Rejected", reason="DeviceFilesNotReady") == 1
        assert rig.allocations == []
        await kubelet.until(lambda: not plugin.healthy)
        rig.advertise(replace(rig.devices[0], healthy=False), *rig.devices[1:])
        (tmp_path / "cdi").unlink()
        await kubelet.until(lambda: len(plugin.healthy) == 7)
        assert not plugin.stopped
        assert await kubelet.admit("bare", 1) == {"GPU-1"}
