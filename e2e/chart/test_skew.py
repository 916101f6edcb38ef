"""Agents and operator of two versions work together, as in the middle of an upgrade and of a rollback.

Nothing is released, so the other version is an earlier revision, whose API lacks the fields of moved pods.
"""

import dataclasses
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpufleet_e2e.support.api import JsonObject
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.install import REPOSITORY, install
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace
from gpufleet_testbed import repository_root
from gpufleet_testbed.images.project import build_image

READY_SECONDS = 90
REVISION = "f47e3c7"
TAG = "earlier"
ON_DELETE = {"image": {"repository": REPOSITORY}, "updateStrategy": {"type": "OnDelete", "rollingUpdate": None}}
"""Agents stay as they are while chart, CRDs and operator change."""


@dataclass(frozen=True)
class Earlier:
    """The chart of the earlier revision, whose image the nodes have."""

    chart: Path

    def install(self, fleet: Fleet) -> None:
        """Replaces chart, CRDs and operator; the agents stay."""
        install(fleet.cluster, agent=ON_DELETE, values={"image": {"tag": TAG}}, chart=self.chart, wait=False)


@pytest.fixture
def earlier(fleet: Fleet, tmp_path: Path) -> Iterator[Earlier]:
    archive = subprocess.run(["git", "archive", REVISION], cwd=repository_root(), capture_output=True, check=False)
    if archive.returncode != 0:
        pytest.skip(f"the history of this checkout has no {REVISION}: {archive.stderr.decode().strip()}")
    subprocess.run(["tar", "--extract", f"--directory={tmp_path}"], input=archive.stdout, check=True)
    image = dataclasses.replace(build_image(repository=tmp_path), name=f"localhost/{REPOSITORY}:{TAG}")
    fleet.cluster.load_image(image.archive())
    yield Earlier(tmp_path / "charts" / "gpufleet")
    fleet.install()
    fleet.replace_agents()


def test_agents_and_operator_of_two_versions_place_work(
    namespace: TestNamespace, fleet: Fleet, earlier: Earlier
) -> None:
    """The operator goes back while the agents stay, and forth while the agents are the earlier ones."""
    node = fleet.nodes[1]
    namespace.apply(gpuworkload("before", node=node))
    namespace.wait_ready("before")
    container = namespace.pod("before")["status"]["containerStatuses"][0]["containerID"]

    def check(name: str, operator: str, agent: str) -> None:
        eventually(lambda: _decides(fleet, operator), within=READY_SECONDS)
        assert {_tag(fleet.agent_pod(one)) for one in fleet.nodes} == {agent}
        namespace.apply(gpuworkload(name, node=node), gpuworkload(f"{name}-waits", node="nowhere"))
        namespace.verify(name, "before")
        namespace.wait_condition(f"{name}-waits", "Placed", "False", "NoDevicesAvailable")
        assert namespace.pod("before")["status"]["containerStatuses"][0]["containerID"] == container

    now = _tag(fleet.operator_pod())
    earlier.install(fleet)
    check("operator-behind", operator=TAG, agent=now)
    fleet.replace_agents()
    check("both-behind", operator=TAG, agent=TAG)
    install(fleet.cluster, agent=ON_DELETE, wait=False)
    check("agents-behind", operator=now, agent=TAG)
    fleet.replace_agents()
    check("none-behind", operator=now, agent=now)


def _decides(fleet: Fleet, tag: str) -> None:
    pod = fleet.operator_pod()
    assert _tag(pod) == tag
    assert [one["ready"] for one in pod["status"].get("containerStatuses", [])] == [True]


def _tag(pod: JsonObject) -> str:
    return str(pod["spec"]["containers"][0]["image"]).rpartition(":")[2]
