"""The plugin of kubectl on the shared cluster."""

import pytest

from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.programs.command_line import CommandLine


@pytest.fixture
def cli(fleet: Fleet) -> CommandLine:
    return CommandLine(fleet.cluster)
