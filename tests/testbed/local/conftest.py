from ipaddress import IPv4Network
from pathlib import Path

import pytest

from gpufleet_testbed.binaries.assets import Assets
from gpufleet_testbed.local.layout import Layout
from gpufleet_testbed.versions import LOCAL_TOOLS


@pytest.fixture
def layout() -> Layout:
    return Layout(Path("/cache/cluster"), "gpufleet", IPv4Network("10.244.0.0/16"), 2)


@pytest.fixture
def assets() -> Assets:
    return Assets({name: Path("/bin") / name for tool in LOCAL_TOOLS for name, _ in tool.commands})
