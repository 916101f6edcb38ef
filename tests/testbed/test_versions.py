"""versions.py names each version once more than the go.mod files do: they must not drift apart."""

import re
from pathlib import Path

import pytest

from gpufleet_testbed.binaries.go_build import binary_paths
from gpufleet_testbed.config import repository_root
from gpufleet_testbed.versions import (
    DEFAULT_KUBERNETES,
    ETCD,
    GO_MINIMUM,
    KIND,
    KIND_COREDNS,
    KIND_NODE_IMAGE,
    KUBEADM,
    KUBERNETES,
    KUBERNETES_RELEASES,
    KWOK,
    LOCAL_TOOLS,
    Tool,
    local_tools,
)

MODULES = repository_root() / "testbed" / "gpufleet_testbed" / "binaries" / "modules"
KUBERNETES_TOOLS = [release.tool for release in KUBERNETES_RELEASES.values()]
TOOLS = [
    *KUBERNETES_TOOLS,
    *(tool for tool in LOCAL_TOOLS if tool is not KUBERNETES),
    KIND,
    KWOK,
    KUBEADM,
    KIND_COREDNS,
]


def go_mod(tool: Tool) -> str:
    return (MODULES / tool.folder / "go.mod").read_text()


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.folder)
def test_go_mod_pins_the_version_and_knows_every_command(tool: Tool) -> None:
    text = go_mod(tool)
    pinned = f"{re.escape(tool.module)} {re.escape(tool.version)}"
    assert re.search(rf"^\s*(require )?{pinned}( // indirect)?$", text, re.MULTILINE)
    tools = set(re.findall(r"^(?:tool |\t)([^\s(]+)$", text, re.MULTILINE))
    if (MODULES / tool.folder / "main.go").exists():
        tools = set(re.findall(r"^module (\S+)$", text, re.MULTILINE))
    assert tools == {package for _, package in tool.commands}
    assert (MODULES / tool.folder / "go.sum").read_text().count("\n") > 10


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.folder)
def test_no_module_needs_a_newer_go_than_we_ask_for(tool: Tool) -> None:
    found = re.search(r"^go (\d+)\.(\d+)\.(\d+)$", go_mod(tool), re.MULTILINE)
    assert found
    assert tuple(map(int, found.groups())) <= GO_MINIMUM


@pytest.mark.parametrize("tool", KUBERNETES_TOOLS, ids=lambda tool: tool.folder)
def test_staging_modules_are_those_of_the_release(tool: Tool) -> None:
    _, minor, patch = tool.version.removeprefix("v").split(".")
    staging = set(re.findall(r"=> k8s\.io/\S+ (v\S+)", go_mod(tool)))
    assert staging == {f"v0.{minor}.{patch}"}


def test_releases_are_consecutive_and_named_after_their_version() -> None:
    assert list(KUBERNETES_RELEASES) == ["1.34", "1.35", "1.36", "1.37"]
    assert [release.tool.version.rpartition(".")[0] for release in KUBERNETES_RELEASES.values()] == [
        f"v{minor}" for minor in KUBERNETES_RELEASES
    ]
    assert [release.minor for release in KUBERNETES_RELEASES.values()] == list(KUBERNETES_RELEASES)


def test_releases_differ_in_the_binaries_of_kubernetes_only() -> None:
    assert local_tools(DEFAULT_KUBERNETES) == LOCAL_TOOLS
    for minor, release in KUBERNETES_RELEASES.items():
        first, *others = local_tools(minor)
        assert first is release.tool
        assert others == list(LOCAL_TOOLS[1:])
        assert {name for name, _ in first.commands} == {name for name, _ in KUBERNETES.commands}


def test_releases_have_folders_of_their_own_in_the_cache(tmp_path: Path) -> None:
    folders = {binary_paths(tool, tmp_path)["kubelet"].parent for tool in KUBERNETES_TOOLS}
    assert sorted(folder.name.rpartition("-")[0] for folder in folders) == [
        f"kubernetes-{tool.version}" for tool in KUBERNETES_TOOLS
    ]
    assert binary_paths(ETCD, tmp_path) == binary_paths(local_tools("1.34")[1], tmp_path)


def test_kind_runs_the_same_minor_version() -> None:
    minor = KUBERNETES.version.rpartition(".")[0]
    assert KIND_NODE_IMAGE.startswith(f"kindest/node:{minor}.")
    assert "@sha256:" in KIND_NODE_IMAGE


def test_tools_share_the_versions_of_modules_that_most_packages_import() -> None:
    versions: dict[str, set[str]] = {}
    for tool in (*LOCAL_TOOLS, KWOK, KUBEADM, KIND_COREDNS):
        text = go_mod(tool)
        replaced = dict(re.findall(r"(k8s\.io/\S+) => k8s\.io/\S+ (v\S+)", text))
        for module, version in re.findall(
            r"^\t((?:golang\.org/x|k8s\.io)/\S+) (v\S+)(?: // indirect)?$", text, re.MULTILINE
        ):
            versions.setdefault(module, set()).add(replaced.get(module, version))
    different = {module: found for module, found in versions.items() if len(found) > 1}
    assert different == {}
