import pytest

from gpufleet_testbed.binaries.assets import Assets
from gpufleet_testbed.local.layout import Layout
from gpufleet_testing.testbed import make_assets, make_layout


@pytest.fixture
def layout() -> Layout:
    return make_layout()


@pytest.fixture
def assets() -> Assets:
    return make_assets()
