"""The plugin for krew: its manifest, its archive, and the program in it."""

import hashlib
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

from gpufleet_testing import krew

WHEEL = "gpufleet-1.2.3-py3-none-any.whl"


@pytest.fixture
def built(tmp_path: Path) -> Path:
    wheel = tmp_path / WHEEL
    wheel.write_bytes(b"wheel")
    assert krew.main([str(wheel), "--url", "https://example.com/a.tar.gz"]) == 0
    return tmp_path


def test_manifest_names_version_archive_and_digest(built: Path) -> None:
    manifest = yaml.safe_load((built / krew.MANIFEST).read_text())
    assert (manifest["kind"], manifest["metadata"]["name"]) == ("Plugin", "gpufleet")
    assert manifest["spec"]["version"] == "v1.2.3"
    assert len(manifest["spec"]["shortDescription"]) <= 50  # a rule of krew's index
    (platform,) = manifest["spec"]["platforms"]
    assert platform["uri"] == "https://example.com/a.tar.gz"
    assert platform["sha256"] == hashlib.sha256((built / krew.ARCHIVE).read_bytes()).hexdigest()
    with tarfile.open(built / krew.ARCHIVE) as tar:
        assert tar.getnames() == [platform["bin"], WHEEL, "LICENSE"]
        assert tar.getmember(platform["bin"]).mode == 0o755


def test_archive_is_the_same_for_the_same_files(built: Path) -> None:
    first = (built / krew.ARCHIVE).read_bytes()
    krew.build(built / WHEEL, "https://example.com/b.tar.gz")
    assert (built / krew.ARCHIVE).read_bytes() == first


def launch(folder: Path, tools: Path) -> subprocess.CompletedProcess[str]:
    """Runs the plugin through the link that krew makes."""
    store = folder / "store"
    with tarfile.open(folder / krew.ARCHIVE) as tar:
        tar.extractall(store, filter="data")
    link = folder / "kubectl-gpufleet"
    link.symlink_to(store / "kubectl-gpufleet")
    env = {"PATH": f"{tools}{os.pathsep}/usr/bin{os.pathsep}/bin", "HOME": str(folder)}
    return subprocess.run([link, "top", "-w"], env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("tool", "options"), [("uvx", "--quiet --from"), ("pipx", "run --quiet --spec")])
def test_program_runs_the_wheel_with_the_tool_that_is_there(built: Path, tool: str, options: str) -> None:
    tools = built / "tools"
    tools.mkdir()
    (tools / tool).write_text('#!/bin/sh\necho "$@"\n')
    (tools / tool).chmod(0o755)
    done = launch(built, tools)
    assert done.stdout == f"{options} {built}/store/{WHEEL}[cli] kubectl-gpufleet top -w\n", done.stderr


def test_program_without_a_tool_says_what_it_needs(built: Path) -> None:
    done = launch(built, built / "none")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: kubectl-gpufleet needs uv or pipx, .*\n", done.stderr)
