"""The management library is found below the root of a host or of a driver container."""

from pathlib import Path

import pytest

from gpufleet_agent.devices import nvml_library
from gpufleet_agent.devices.base import HardwareUnavailableError
from gpufleet_agent.devices.nvml import NvmlHardware


def installed(root: Path, folder: str) -> Path:
    path = root / folder / nvml_library.NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    return path


@pytest.mark.parametrize("folder", nvml_library.FOLDERS)
def test_library_is_loaded_by_its_path(folder: str, tmp_path: Path) -> None:
    path, loaded = installed(tmp_path, folder), list[str]()
    assert nvml_library.load(tmp_path, loaded.append) == path
    assert loaded == [str(path)]


def test_link_that_leads_out_of_the_root_is_skipped(tmp_path: Path) -> None:
    link = tmp_path / "usr/lib/x86_64-linux-gnu" / nvml_library.NAME
    link.parent.mkdir(parents=True)
    link.symlink_to("/etc/alternatives/missing")
    path = installed(tmp_path, "usr/lib/x86_64-linux-gnu/nvidia/current")
    assert nvml_library.load(tmp_path, lambda _: None) == path


def test_missing_library_names_the_root(tmp_path: Path) -> None:
    hardware = NvmlHardware(library_root=tmp_path)
    with pytest.raises(HardwareUnavailableError, match=f"libnvidia-ml.so.1 not found below {tmp_path}"):
        hardware.open()


def test_library_that_is_no_library_is_named(tmp_path: Path) -> None:
    path = installed(tmp_path, "lib64")
    with pytest.raises(HardwareUnavailableError, match=f"{path} cannot be loaded: "):
        nvml_library.load(tmp_path)
