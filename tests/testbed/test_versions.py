"""versions.py names each version once more than the go.mod files do: they must not drift apart."""

import re

import pytest

from gpufleet_testbed.config import repository_root
from gpufleet_testbed.versions import GO_MINIMUM, KIND, KIND_NODE_IMAGE, KUBERNETES, LOCAL_TOOLS, Tool

MODULES = repository_root() / "testbed" / "gpufleet_testbed" / "binaries" / "modules"


def go_mod(tool: Tool) -> str:
    return (MODULES / tool.name / "go.mod").read_text()


@pytest.mark.parametrize("tool", [*LOCAL_TOOLS, KIND], ids=lambda tool: tool.name)
def test_go_mod_pins_the_version_and_knows_every_command(tool: Tool) -> None:
    text = go_mod(tool)
    pinned = f"{re.escape(tool.module)} {re.escape(tool.version)}"
    assert re.search(rf"^\s*(require )?{pinned}( // indirect)?$", text, re.MULTILINE)
    tools = set(re.findall(r"^(?:tool |\t)([^\s(]+)$", text, re.MULTILINE))
    if (MODULES / tool.name / "main.go").exists():
        tools = set(re.findall(r"^module (\S+)$", text, re.MULTILINE))
    assert tools == {package for _, package in tool.commands}
    assert (MODULES / tool.name / "go.sum").read_text().count("\n") > 10


@pytest.mark.parametrize("tool", [*LOCAL_TOOLS, KIND], ids=lambda tool: tool.name)
def test_no_module_needs_a_newer_go_than_we_ask_for(tool: Tool) -> None:
    found = re.search(r"^go (\d+)\.(\d+)\.(\d+)$", go_mod(tool), re.MULTILINE)
    assert found
    assert tuple(map(int, found.groups())) <= GO_MINIMUM


def test_staging_modules_are_those_of_the_release() -> None:
    _, minor, patch = KUBERNETES.version.removeprefix("v").split(".")
    staging = set(re.findall(r"=> k8s\.io/\S+ (v\S+)", go_mod(KUBERNETES)))
    assert staging == {f"v0.{minor}.{patch}"}


def test_kind_runs_the_same_minor_version() -> None:
    minor = KUBERNETES.version.rpartition(".")[0]
    assert KIND_NODE_IMAGE.startswith(f"kindest/node:{minor}.")
    assert "@sha256:" in KIND_NODE_IMAGE


def test_tools_share_the_versions_of_modules_that_most_packages_import() -> None:
    versions: dict[str, set[str]] = {}
    for tool in LOCAL_TOOLS:
        text = go_mod(tool)
        replaced = dict(re.findall(r"(k8s\.io/\S+) => k8s\.io/\S+ (v\S+)", text))
        for module, version in re.findall(
            r"^\t((?:golang\.org/x|k8s\.io)/\S+) (v\S+)(?: // indirect)?$", text, re.MULTILINE
        ):
            versions.setdefault(module, set()).add(replaced.get(module, version))
    different = {module: found for module, found in versions.items() if len(found) > 1}
    assert different == {}
