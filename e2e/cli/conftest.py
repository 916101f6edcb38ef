"""The plugin of kubectl on the shared cluster."""

import pytest

from gpufleet_e2e.support.command_line import CommandLine
from gpufleet_e2e.support.fleet import Fleet


@pytest.fixture
def cli(fleet: Fleet) -> CommandLine:
    return CommandLine(fleet.cluster)
