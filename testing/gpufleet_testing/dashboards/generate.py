"""The files of the chart with the dashboards."""

import json
from pathlib import Path

from gpufleet_api.generate import ROOT
from gpufleet_testing.dashboards.control_plane import CONTROL_PLANE
from gpufleet_testing.dashboards.device import DEVICE
from gpufleet_testing.dashboards.fleet import FLEET
from gpufleet_testing.dashboards.layout import Dashboard, render
from gpufleet_testing.dashboards.tenants import TENANTS
from gpufleet_testing.dashboards.waiting import QUEUE

FOLDER = ROOT / "charts/gpufleet/files/dashboards"
DASHBOARDS = (FLEET, TENANTS, QUEUE, DEVICE, CONTROL_PLANE)


def path(dashboard: Dashboard) -> Path:
    """Returns the file of a dashboard."""
    return FOLDER / f"{dashboard.uid}.json"


def files() -> dict[Path, str]:
    """Returns the content of each file."""
    return {path(one): json.dumps(render(one), indent=1) + "\n" for one in DASHBOARDS}
