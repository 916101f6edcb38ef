from pathlib import Path

import pytest

from gpufleet_testbed.errors import HostError
from gpufleet_testbed.host.packages import ensure_packages, is_debian_like, missing_packages
from gpufleet_testing.testbed import FakeRunner, FakeSystem, RecordedProgress

DEBIAN = 'NAME="Debian GNU/Linux"\nID=debian\nVERSION_ID="12"\n'


def test_each_missing_package_is_named_once(system: FakeSystem) -> None:
    system.programs_missing = {"runc"}
    system.paths_missing = {Path("/usr/lib/cni/bridge"), Path("/usr/lib/cni/portmap")}
    assert missing_packages(system) == ["containernetworking-plugins", "runc"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DEBIAN, True),
        ("ID=ubuntu\nID_LIKE=debian\n", True),
        ('ID="linuxmint"\nID_LIKE="ubuntu debian"\n', True),
        ("ID=fedora\n", False),
        ("", False),
    ],
)
def test_debian_and_its_children_are_known(text: str, expected: bool) -> None:
    assert is_debian_like(text) is expected


def test_nothing_is_run_when_all_is_there(system: FakeSystem, progress: RecordedProgress, runner: FakeRunner) -> None:
    ensure_packages(system, progress, runner)
    assert runner.calls == []


def test_root_on_debian_installs_after_saying_so(
    system: FakeSystem, progress: RecordedProgress, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    system.files[Path("/etc/os-release")] = DEBIAN
    system.programs_missing = {"runc"}
    monkeypatch.setattr(system, "which", lambda program: program != "runc" or bool(runner.calls))
    ensure_packages(system, progress, runner)
    assert runner.calls == [["apt-get", "install", "--yes", "--no-install-recommends", "runc"]]
    assert "installing missing packages: runc" in progress.lines[0]


def test_package_lists_are_updated_after_a_failed_install(
    system: FakeSystem, progress: RecordedProgress, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    system.files[Path("/etc/os-release")] = DEBIAN
    system.programs_missing = {"runc"}
    runner.answer("apt-get", "install", status=100)
    runner.answer("apt-get", "update", status=0)
    with pytest.raises(HostError, match=r"runc, and installing them failed.*Fix: apt-get install runc"):
        ensure_packages(system, progress, runner)
    assert [call[1] for call in runner.calls] == ["install", "update", "install"]


def test_other_systems_get_package_names(system: FakeSystem, progress: RecordedProgress, runner: FakeRunner) -> None:
    system.programs_missing = {"runc"}
    with pytest.raises(HostError, match=r"programs are missing: runc\. Fix: install the equivalents of Debian's runc"):
        ensure_packages(system, progress, runner)
    system.files[Path("/etc/os-release")] = DEBIAN
    system.root = False
    with pytest.raises(HostError, match="Fix: apt-get install runc"):
        ensure_packages(system, progress, runner)
    assert runner.calls == []
