from pathlib import Path
from threading import Event, Thread

import pytest

from gpufleet_testbed.binaries.go_build import binary_paths
from gpufleet_testbed.binaries.tool_builds import ToolBuilds
from gpufleet_testbed.errors import ClusterError
from gpufleet_testbed.versions import CONTAINERD, ETCD, HELM, KUBERNETES, Tool, local_tools
from gpufleet_testbed.waiting import wait_until
from gpufleet_testing.testbed import FakeGo, RecordedProgress

pytestmark = pytest.mark.usefixtures("go_on_path")


@pytest.fixture
def go_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/go")


def builds(cache: Path, go: FakeGo, *tools: Tool, progress: RecordedProgress | None = None) -> ToolBuilds:
    return ToolBuilds(cache, progress or RecordedProgress(), tools, runner=go.run, follower=go.follow)


def folders(cache: Path) -> set[str]:
    return {path.name for path in (cache / "tools").iterdir()}


def test_every_binary_is_built_once(tmp_path: Path, progress: RecordedProgress) -> None:
    go = FakeGo()
    with builds(tmp_path, go, ETCD, CONTAINERD, progress=progress) as first:
        pass
    assert all(path.read_bytes() == b"binary" for path in first.paths.values())
    assert sorted(go.built) == ["containerd", "etcd"]
    assert "Building 4 binaries with /usr/bin/go" in progress.lines[0]
    assert progress.lines[-1].endswith("built etcd, containerd")
    with builds(tmp_path, go, ETCD, CONTAINERD) as second:
        pass
    assert second.paths == first.paths
    assert len(go.built) == 2


def test_modules_are_built_in_order_and_one_at_a_time(tmp_path: Path) -> None:
    go = FakeGo()
    with builds(tmp_path, go, KUBERNETES, ETCD, CONTAINERD, HELM):
        pass
    assert go.most_running == 1
    assert go.built == ["kubernetes-1.36", "etcd", "containerd", "helm"]


def test_versions_are_built_from_their_own_modules_beside_each_other(tmp_path: Path) -> None:
    go = FakeGo()
    kubelets = set()
    for minor in ("1.34", "1.37"):
        with builds(tmp_path, go, *local_tools(minor)) as done:
            pass
        kubelets.add(done.paths["kubelet"])
    assert len(kubelets) == 2
    assert all(kubelet.is_file() for kubelet in kubelets)
    assert go.built == ["kubernetes-1.34", "etcd", "containerd", "coredns", "helm", "kubernetes-1.37"]


def test_a_tool_can_be_used_while_others_are_built(tmp_path: Path) -> None:
    go = FakeGo()
    with builds(tmp_path, go, ETCD) as done:
        done.wait("etcd")
    go.hold = Event()
    with builds(tmp_path, go, ETCD, HELM) as pending:
        pending.wait("etcd")
        assert binary_paths(ETCD, tmp_path)["etcd"].is_file()
        assert not binary_paths(HELM, tmp_path)["helm"].exists()
        go.hold.set()
        pending.wait("helm")
        assert binary_paths(HELM, tmp_path)["helm"].is_file()


def test_a_failed_build_is_raised_and_publishes_no_part_of_a_tool(tmp_path: Path, progress: RecordedProgress) -> None:
    go = FakeGo(fails_for="containerd")
    with pytest.raises(ClusterError, match="does not compile"), builds(tmp_path, go, CONTAINERD, progress=progress):
        pass
    assert folders(tmp_path) == {".lock"}
    assert progress.lines[-1].endswith(" failed")


def test_a_failed_build_fails_only_those_who_wait_for_it(tmp_path: Path) -> None:
    go = FakeGo(fails_for="helm")
    with pytest.raises(ClusterError, match="does not compile"), builds(tmp_path, go, ETCD, HELM) as pending:
        pending.wait("etcd")
    assert any(name.startswith("etcd-") for name in folders(tmp_path))


def test_an_error_of_the_caller_stops_the_builds(tmp_path: Path) -> None:
    go = FakeGo(hold=Event())

    def interrupted() -> None:
        with builds(tmp_path, go, KUBERNETES, ETCD, CONTAINERD, HELM):
            wait_until(lambda: go.running == 1, "a build runs", timeout=5)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert go.stopped == ["kubernetes-1.36"]
    assert go.built == []
    assert folders(tmp_path) == {".lock"}


def test_a_tool_built_by_another_process_meanwhile_is_not_built_again(tmp_path: Path) -> None:
    first, second = FakeGo(hold=Event()), FakeGo()

    def other() -> None:
        with builds(tmp_path, second, ETCD):
            pass

    waiting = Thread(target=other)
    with builds(tmp_path, first, ETCD):
        waiting.start()
        assert first.hold is not None
        first.hold.set()
    waiting.join()
    assert (first.built, second.built) == (["etcd"], [])


def test_progress_counts_what_is_compiled_and_what_is_left(tmp_path: Path) -> None:
    lines: list[str] = []

    class Watched(RecordedProgress):
        def say(self, text: str) -> None:
            super().say(text)
            lines.extend(str(one.text() if callable(one.text) else one.text) for one in self._running)

    go, progress = FakeGo(hold=Event()), Watched()
    with builds(tmp_path, go, KUBERNETES, ETCD, HELM, progress=progress):
        wait_until(lambda: go.running == 1 and bool(progress._running), "the builds are shown", timeout=5)
        progress.say("now")
        assert go.hold is not None
        go.hold.set()
    assert lines[0] == "building: kubernetes 50 % compiled, etcd waiting, helm waiting"
