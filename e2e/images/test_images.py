"""The images of the Dockerfile, built by Debian's Docker Engine, run in a cluster."""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from gpufleet_e2e.identities.accounts import binding
from gpufleet_e2e.support.api import Api, workloads
from gpufleet_e2e.support.docker.engine import DockerEngine, docker_engine
from gpufleet_e2e.support.gpus import Gpus
from gpufleet_e2e.support.install import install
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.programs.in_pod import run_in_pod
from gpufleet_testbed import ClusterConfig, Provider, repository_root, up
from gpufleet_testing.sbom import Contents, document, read_contents

VERSION = "e2e"
PROGRAMS = {"agent": "gpufleet-agent", "operator": "gpufleet-operator", "cli": "gpufleet"}
AGENT_MEGABYTES = 100
FOREIGN = {
    "agent": {"grpcio", "numpy", "pydantic", "kopf", "aiohttp", "rich", "typer", "kubernetes"},
    "operator": {"grpclib", "grpcio", "nvidia-ml-py", "rich", "typer", "kubernetes"},
    "cli": {"grpclib", "grpcio", "nvidia-ml-py", "kopf", "aiohttp", "kubernetes"},
}
"""Distributions that a program does not import."""
CLUSTER = ClusterConfig.from_environment(
    provider=Provider.LOCAL, name="images", network="10.244.0.0/16", nodes=1, project_image=False
)


def image(target: str) -> str:
    return f"localhost/gpufleet-{target}:{VERSION}"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerEngine]:
    with docker_engine(tmp_path_factory.mktemp("docker")) as started:
        for target in (*PROGRAMS, "all"):
            started.build(target, image(target), VERSION=VERSION)
        yield started


@pytest.fixture(scope="module")
def contents(engine: DockerEngine) -> dict[str, Contents]:
    return {target: read_contents(partial(engine.run, image(target))) for target in PROGRAMS}


def test_image_has_what_its_program_imports(engine: DockerEngine, contents: dict[str, Contents]) -> None:
    for target, program in PROGRAMS.items():
        print(f"{target}: {engine.added_megabytes(image(target)):.1f} MB over the base image")
        assert engine.run(image(target), program, "--version").startswith(program)
        assert FOREIGN[target].isdisjoint(contents[target].python), target
        label = '{{index .Config.Labels "org.opencontainers.image.version"}} {{.Config.User}}'
        assert engine("image", "inspect", f"--format={label}", image(target)) == f"{VERSION} 65532:65532"
    assert engine.added_megabytes(image("agent")) <= AGENT_MEGABYTES
    for program in PROGRAMS.values():
        assert engine.run(image("all"), program, "--version").startswith(program)


def test_bill_of_materials_names_what_an_image_contains(contents: dict[str, Contents]) -> None:
    spdx = document(image("agent"), "sha256:0", contents["agent"], datetime.now(UTC))
    packages = spdx["packages"]
    assert isinstance(packages, list)
    found = {package["name"]: package["versionInfo"] for package in packages}
    assert {"libc6", "python3-minimal", "grpclib", "nvidia-ml-py", "gpufleet"} <= set(found)
    locked = (repository_root() / "uv.lock").read_text()
    assert f'name = "grpclib"\nversion = "{found["grpclib"]}"' in locked


def test_images_place_a_workload_and_show_it(engine: DockerEngine, tmp_path: Path) -> None:
    agent, operator = ({"image": {"repository": f"gpufleet-{name}"}} for name in ("agent", "operator"))
    with up(CLUSTER) as cluster:
        for target in PROGRAMS:
            archive = tmp_path / f"{target}.tar"
            engine("save", f"--output={archive}", image(target), timeout=120)
            cluster.load_image(archive)
        Gpus(cluster.nodes[0], 2)
        install(cluster, agent=agent, operator=operator, values={"image": {"tag": VERSION}})
        api = Api(cluster.kubeconfig)
        cluster.kubectl("apply", "-f", str(repository_root() / "examples" / "single.yaml"))
        eventually(partial(_confirmed, api), within=60)
        path, body = binding("viewer", "view", ("default", "default"))
        api.create(path.rpartition("/")[0], body)
        code, text = run_in_pod(api, "default", "top", "top", image=image("cli"))
        assert (code, "default/single-0-" in text) == (0, True), text
        code, text = run_in_pod(api, "default", "doctor", "doctor", image=image("cli"))
        # The log also has notes on what a viewer may not read: of another stream, so before it or after it.
        assert code == 0, text
        assert any(line.startswith("no problem found; ") for line in text.splitlines()), text


def _confirmed(api: Api) -> None:
    (workload,) = api.get(workloads("default"))["items"]
    conditions = {c["type"]: c["status"] for c in workload.get("status", {}).get("conditions", [])}
    assert conditions.get("Ready") == "True", workload.get("status")
