import pytest

from gpufleet_testbed import __main__ as command_line
from gpufleet_testbed import lifecycle
from gpufleet_testbed.config import ClusterConfig, Provider
from gpufleet_testbed.errors import ClusterError, ConflictError, HostError, NotRunningError, Problem


def test_up_passes_the_choices_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def reject(config: ClusterConfig, *, detach: bool) -> None:
        asked.append((config, detach))
        raise ConflictError("another one")

    monkeypatch.setattr(lifecycle, "up", reject)
    assert command_line.main(["--name", "mine", "up", "--nodes", "3", "--no-image", "--provider", "local"]) == 1
    expected = ClusterConfig.from_environment(nodes=3, name="mine", project_image=False, provider=Provider.LOCAL)
    assert asked == [(expected, True)]


def test_version_of_kubernetes_is_an_option_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(lifecycle, "build", lambda config: asked.append(config.kubernetes))
    monkeypatch.setenv("GPUFLEET_CLUSTER_KUBERNETES", "1.34")
    assert command_line.main(["build"]) == 0
    assert command_line.main(["build", "--kubernetes", "1.37"]) == 0
    assert asked == ["1.34", "1.37"]


def test_unknown_version_of_kubernetes_is_an_error_with_the_choices(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GPUFLEET_CLUSTER_KUBERNETES", "latest")
    assert command_line.main(["up"]) == 1
    assert capsys.readouterr().err == (
        'error: GPUFLEET_CLUSTER_KUBERNETES: Unsupported value: "latest": '
        'supported values: "1.34", "1.35", "1.36", "1.37"\n'
    )


def test_host_problems_exit_with_status_2_and_one_line_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lack(config: ClusterConfig, *, detach: bool) -> None:
        raise HostError([Problem("no root", "sudo"), Problem("no runc", "apt-get install runc")])

    monkeypatch.setattr(lifecycle, "up", lack)
    assert command_line.main(["up"]) == 2
    assert capsys.readouterr().err == "no root. Fix: sudo\nno runc. Fix: apt-get install runc\n"


def test_values_out_of_range_are_an_error_not_a_trace(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["up", "--nodes", "99"]) == 1
    assert "nodes: Invalid value: 99: must be from 1 to 20" in capsys.readouterr().err


def test_nothing_running_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def nothing(name: str) -> None:
        raise NotRunningError("no cluster is running")

    monkeypatch.setattr(lifecycle, "attach", nothing)
    monkeypatch.setattr(lifecycle, "status", lambda name: None)
    assert command_line.main(["kubeconfig"]) == 1
    assert command_line.main(["status"]) == 1
    assert "no cluster is running" in capsys.readouterr().out


def test_down_removes_a_broken_cluster(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(name: str) -> None:
        raise ClusterError("supervisor does not answer")

    monkeypatch.setattr(lifecycle, "status", fail)
    monkeypatch.setattr(lifecycle, "down", lambda name: None)
    assert command_line.main(["down"]) == 0
    assert capsys.readouterr().out == "cluster removed\n"


def test_up_and_build_describe_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    shown = {}
    for command in ("up", "build"):
        with pytest.raises(SystemExit):
            command_line.main([command, "--help"])
        shown[command] = " ".join(capsys.readouterr().out.split())
    assert "Start a cluster" in shown["up"]
    assert "do not build and load the project's image" in shown["up"]
    assert "do not build the project's image" in shown["build"]
    assert "processes of this machine (local, the default)" in shown["up"]


def test_exec_wants_a_node_and_a_command() -> None:
    options = command_line.parser().parse_args(["exec", "node-1", "--", "ls", "-l", "/"])
    assert (options.node, options.args) == ("node-1", ["ls", "-l", "/"])


@pytest.mark.parametrize(("running", "message"), [(None, "no cluster is running"), (object(), "cluster removed")])
def test_down_reports_whether_a_cluster_was_removed(
    running: object, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended: list[str] = []
    monkeypatch.setattr(lifecycle, "status", lambda name: running)
    monkeypatch.setattr(lifecycle, "down", ended.append)
    assert command_line.main(["--name", "mine", "down"]) == 0
    assert ended == ["mine"]
    assert capsys.readouterr().out == f"{message}\n"
