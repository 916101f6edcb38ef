from pathlib import Path

import pytest

from gpufleet_testbed.binaries import go_build
from gpufleet_testbed.errors import HostError
from gpufleet_testbed.versions import (
    CONTAINERD,
    ETCD,
    KIND_TOOLS,
    KUBERNETES_RELEASES,
    LOCAL_TOOLS,
    KubernetesRelease,
    Tool,
)
from gpufleet_testing.testbed import FakeRunner


def test_one_command_builds_all_binaries_reproducibly() -> None:
    command = go_build.build_command("go", CONTAINERD, Path("/out"))
    assert command[:6] == ["go", "build", "-v", "-mod=readonly", "-trimpath", "-buildvcs=false"]
    assert "-gcflags=all=-dwarf=false" in command
    assert "-tags=no_btrfs,no_devmapper,no_zfs,no_aufs" in command
    assert command[-5:-3] == ["-o", "/out/"]
    assert command[-3:] == [package for _, package in CONTAINERD.commands]


def test_a_single_binary_may_have_another_name_than_its_package() -> None:
    assert go_build.build_command("go", ETCD, Path("/out"))[-3:] == ["-o", "/out/etcd", "go.etcd.io/etcd/server/v3"]


@pytest.mark.parametrize("tool", [*LOCAL_TOOLS, *KIND_TOOLS], ids=lambda tool: f"{tool.name}-{len(tool.commands)}")
def test_go_names_binaries_built_together_after_their_packages(tool: Tool) -> None:
    if len(tool.commands) > 1:
        assert all(name == package.rpartition("/")[2] for name, package in tool.commands)


@pytest.mark.parametrize("release", KUBERNETES_RELEASES.values(), ids=lambda release: release.minor)
def test_kubernetes_binaries_know_their_version(release: KubernetesRelease) -> None:
    command = go_build.build_command("go", release.tool, Path("o"))
    (flags,) = [word for word in command if word.startswith("-ldflags=")]
    assert f"-X=k8s.io/component-base/version.gitVersion={release.tool.version}" in flags
    assert f"-X=k8s.io/client-go/pkg/version.gitMinor={release.minor.partition('.')[2]}" in flags


def test_key_follows_modules_sums_source_flags_and_machine(tmp_path: Path) -> None:
    folder = tmp_path / ETCD.name
    folder.mkdir()
    (folder / "go.mod").write_text("module a")
    (folder / "go.sum").write_text("")
    first = go_build.build_key(ETCD, tmp_path, "x86_64")
    assert go_build.build_key(ETCD, tmp_path, "x86_64") == first
    assert go_build.build_key(ETCD, tmp_path, "aarch64") != first
    (folder / "go.sum").write_text("changed")
    second = go_build.build_key(ETCD, tmp_path, "x86_64")
    assert second != first
    (folder / "main.go").write_text("package main")
    assert go_build.build_key(ETCD, tmp_path, "x86_64") not in {first, second}


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("go version go1.19 linux/amd64", (1, 19, 0)),
        ("go version devel +abc", ()),
    ],
)
def test_go_version(text: str, version: tuple[int, ...]) -> None:
    assert go_build.go_version(text) == version


@pytest.mark.parametrize(
    ("found", "environ", "toolchain"),
    [
        ((1, 26, 8), {}, None),
        ((1, 24, 0), {}, "auto"),
        ((1, 24, 0), {"GOTOOLCHAIN": "local"}, None),
    ],
)
def test_an_older_go_may_fetch_the_right_toolchain(
    found: tuple[int, ...], environ: dict[str, str], toolchain: str | None
) -> None:
    assert go_build.build_environment(found, environ).get("GOTOOLCHAIN") == toolchain


def test_a_garbage_collection_setting_of_the_user_is_kept() -> None:
    assert int(go_build.build_environment((1, 26, 8), {})["GOGC"]) > 100
    assert "GOGC" not in go_build.build_environment((1, 26, 8), {"GOGC": "50"})


def test_go_that_is_too_old_is_named_with_the_fix(runner: FakeRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/go")
    runner.answer("/usr/bin/go", stdout="go version go1.19.8 linux/amd64")
    with pytest.raises(HostError, match=r"version 1\.19\.8, too old\. Fix: install Go 1\.26\.8 or newer"):
        go_build.find_go(runner)


def test_missing_go_is_named_with_the_fix(runner: FakeRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(go_build, "_GO_ELSEWHERE", tmp_path / "none")
    with pytest.raises(HostError, match=r"Go is not installed.*GPUFLEET_CLUSTER_ASSETS"):
        go_build.find_go(runner)
