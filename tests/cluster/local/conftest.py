from ipaddress import IPv4Network
from pathlib import Path

import pytest

from cluster.assets import Assets
from cluster.local.layout import Layout
from cluster.versions import LOCAL_TOOLS


@pytest.fixture
def layout() -> Layout:
    return Layout(Path("/cache/cluster"), "gpufleet", IPv4Network("10.244.0.0/16"), 2)


@pytest.fixture
def assets() -> Assets:
    return Assets({name: Path("/bin") / name for tool in LOCAL_TOOLS for name, _ in tool.commands})
