"""Names of the cluster are completed in bash, zsh and fish, and by kubectl for the plugin."""

import subprocess
from pathlib import Path

import pytest
import typer

from gpufleet_cli.app import app
from gpufleet_cli.options.completion import for_kubectl
from gpufleet_testing.cli.clusters import RecordedCluster
from gpufleet_testing.cli.runner import run_cli


@pytest.fixture
def recorded(cluster: RecordedCluster) -> RecordedCluster:
    cluster.record("get-gpuworkloads", "train\ntune\nserve\n")
    cluster.record("get-gputelemetries", "node-1\nnode-2\n")
    cluster.record("get-pods", "train-0\n")
    cluster.record("get-namespaces", "ml\nmonitoring\n")
    cluster.record("config-get-contexts", "prod\nstaging\n")
    return cluster


@pytest.mark.parametrize(
    ("shell", "line", "expected"),
    [
        ("bash", "gpufleet status t", ["train", "tune"]),
        ("zsh", "gpufleet status t", ["train", "tune"]),
        ("fish", "gpufleet status t", ["train", "tune"]),
        ("bash", "gpufleet top node-", ["node-1", "node-2"]),
        ("bash", "gpufleet explain train", ["train", "train-0"]),
        ("bash", "gpufleet top -n m", ["ml", "monitoring"]),
        ("bash", "gpufleet --context st", ["staging"]),
        ("bash", "gpufleet sn", ["snapshot"]),
        ("bash", "gpufleet snapshot s", ["save", "show"]),
    ],
)
def test_names_are_completed_in_each_shell(
    recorded: RecordedCluster, monkeypatch: pytest.MonkeyPatch, shell: str, line: str, expected: list[str]
) -> None:
    monkeypatch.setenv("_GPUFLEET_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    shown = run_cli().out
    assert [name for name in expected if name not in shown] == []
    assert "serve" not in shown


def test_options_before_the_cursor_choose_the_cluster(recorded: RecordedCluster) -> None:
    command = typer.main.get_command(app)
    found = for_kubectl(command, ["--context", "prod", "status", "-n", "ml", "tr"])
    assert found == "train\n:4\n"
    assert recorded.calls[-1].startswith("get gpuworkloads --namespace=ml")
    assert "--context=prod" in recorded.calls[-1]


def test_gpus_and_nodes_are_completed_from_one_list(recorded: RecordedCluster) -> None:
    assert for_kubectl(typer.main.get_command(app), ["who", ""]) == "node-1\nnode-2\ntrain-0\n:4\n"
    assert [call.split()[:2] for call in recorded.calls] == [["get", "gputelemetries"], ["get", "pods"]]


def test_cluster_that_fails_gives_no_names(cluster: RecordedCluster) -> None:
    cluster.fail("get-gpuworkloads", "Unable to connect to the server")
    assert for_kubectl(typer.main.get_command(app), ["status", ""]) == ":0\n"


def test_files_are_left_to_the_shell(cluster: RecordedCluster) -> None:
    assert for_kubectl(typer.main.get_command(app), ["simulate", "-f", ""]) == ":0\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_of_a_shell_calls_the_program(shell: str) -> None:
    script = run_cli("completion", shell).out
    assert f"_GPUFLEET_COMPLETE=complete_{shell}" in script


def test_unknown_shell_is_rejected() -> None:
    assert run_cli("completion", "csh").err == "error: SHELL csh: must be one of bash, zsh, fish\n"


def test_bash_accepts_the_script(tmp_path: Path) -> None:
    file = tmp_path / "completion.bash"
    file.write_text(run_cli("completion", "bash").out)
    done = subprocess.run(
        ["bash", "-c", f"source {file} && complete -p gpufleet"], capture_output=True, text=True, check=True
    )
    assert "_gpufleet_completion gpufleet" in done.stdout
