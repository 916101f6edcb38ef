from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING

import pytest

from gpufleet_testbed.binaries import go_build
from gpufleet_testbed.errors import ClusterError, HostError
from gpufleet_testbed.versions import CONTAINERD, ETCD, HELM, KUBERNETES

if TYPE_CHECKING:
    from tests.testbed.conftest import FakeRunner, Shown


class Compiler:
    """A go command that writes an empty binary where it is told to."""

    def __init__(self, fails_for: str = "") -> None:
        self.built: list[tuple[str, Path | None]] = []
        self.fails_for = fails_for

    def __call__(
        self,
        args: Sequence[str],
        *,
        check: bool = True,
        stdin: str | None = None,
        timeout: float | None = 60,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> CompletedProcess[str]:
        if args[1] == "version":
            return CompletedProcess(list(args), 0, "go version go1.26.8 linux/amd64", "")
        output = Path(args[args.index("-o") + 1])
        if output.name == self.fails_for:
            raise ClusterError("does not compile")
        output.write_bytes(b"binary")
        self.built.append((output.name, cwd))
        assert env is not None
        assert env["CGO_ENABLED"] == "0"
        return CompletedProcess(list(args), 0, "", "")


def test_command_is_reproducible_and_read_only() -> None:
    command = go_build.build_command("go", CONTAINERD, "example.org/cmd", Path("/out/x"))
    assert command[:5] == ["go", "build", "-mod=readonly", "-trimpath", "-buildvcs=false"]
    assert "-tags=no_btrfs,no_devmapper,no_zfs,no_aufs" in command
    assert command[-3:] == ["-o", "/out/x", "example.org/cmd"]


def test_kubernetes_binaries_know_their_version() -> None:
    flags = next(
        word for word in go_build.build_command("go", KUBERNETES, "p", Path("o")) if word.startswith("-ldflags=")
    )
    assert f"-X=k8s.io/component-base/version.gitVersion={KUBERNETES.version}" in flags


def test_key_follows_modules_sums_flags_and_machine(tmp_path: Path) -> None:
    folder = tmp_path / ETCD.name
    folder.mkdir()
    (folder / "go.mod").write_text("module a")
    (folder / "go.sum").write_text("")
    first = go_build.build_key(ETCD, tmp_path, "x86_64")
    assert go_build.build_key(ETCD, tmp_path, "x86_64") == first
    assert go_build.build_key(ETCD, tmp_path, "aarch64") != first
    (folder / "go.sum").write_text("changed")
    assert go_build.build_key(ETCD, tmp_path, "x86_64") != first


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


def test_go_that_is_too_old_is_named_with_the_fix(runner: "FakeRunner", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/go")
    runner.answer("/usr/bin/go", stdout="go version go1.19.8 linux/amd64")
    with pytest.raises(HostError, match=r"version 1\.19\.8, too old\. Fix: install Go 1\.26\.8 or newer"):
        go_build.find_go(runner)


def test_missing_go_is_named_with_the_fix(
    runner: "FakeRunner", monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(go_build, "_GO_ELSEWHERE", tmp_path / "none")
    with pytest.raises(HostError, match=r"Go is not installed.*GPUFLEET_CLUSTER_ASSETS"):
        go_build.find_go(runner)


def test_builds_once_in_the_tools_own_module_and_shows_which(
    tmp_path: Path, progress: "Shown", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/go")
    compiler = Compiler()
    tools = (ETCD, HELM)
    paths = go_build.ensure_tools(tmp_path, progress, tools=tools, runner=compiler)
    assert all(path.read_bytes() == b"binary" for path in paths.values())
    assert [(name, folder.name if folder else "") for name, folder in compiler.built] == [
        ("etcd", "etcd"),
        ("helm", "helm"),
    ]
    assert "[1/2] building etcd" in "".join(progress.lines)
    assert go_build.ensure_tools(tmp_path, progress, tools=tools, runner=compiler) == paths
    assert len(compiler.built) == 2


def test_a_failed_build_leaves_no_half_of_a_tool(
    tmp_path: Path, progress: "Shown", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/go")
    with pytest.raises(ClusterError, match="does not compile"):
        go_build.ensure_tools(tmp_path, progress, tools=(CONTAINERD,), runner=Compiler(fails_for="ctr"))
    assert [path.name for path in (tmp_path / "tools").iterdir()] == [".lock"]
