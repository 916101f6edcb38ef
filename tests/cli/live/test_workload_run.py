"""`gpufleet suspend`, `resume` and `logs`."""

import pytest

from gpufleet_testing.cli.clusters import RecordedCluster, condition, live_workload, workload_pod
from gpufleet_testing.cli.runner import run_cli

SELECTED = "--selector=gpufleet.dev/workload=train --prefix --max-log-requests=2"


@pytest.fixture
def recorded(cluster: RecordedCluster) -> RecordedCluster:
    waiting = {"conditions": [condition("Ready", "False", "WaitingForDevices", "none")]}
    cluster.fleet(
        [],
        [live_workload("train", replicas=2), live_workload("off", suspend=True), live_workload("new", status=waiting)],
        [workload_pod("train-0", "train"), workload_pod("train-1", "train", replica=1)],
    )
    return cluster


def call(cluster: RecordedCluster, verb: str) -> str:
    return next((call for call in cluster.calls if call.split()[0] == verb), "")


def test_suspend_and_resume_patch_one_field(recorded: RecordedCluster) -> None:
    assert run_cli("suspend", "train").out == "gpuworkload.gpufleet.dev/train suspended\n"
    assert call(recorded, "patch").startswith(
        'patch gpuworkloads train --namespace=team --type=merge --patch={"spec": {"suspend": true}} '
    )
    assert run_cli("resume", "team/off").out == "gpuworkload.gpufleet.dev/off resumed\n"


def test_workload_that_is_already_so_is_not_written(recorded: RecordedCluster) -> None:
    assert run_cli("suspend", "off").out == "gpuworkload.gpufleet.dev/off is already suspended\n"
    assert run_cli("resume", "train").out == "gpuworkload.gpufleet.dev/train is not suspended\n"
    assert call(recorded, "patch") == ""


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["train", "--replica", "1", "-f"], "logs --namespace=team --tail=-1 train-1 --follow"),
        (
            ["train", "--since", "10m", "--tail", "5", "-c", "main"],
            f"logs --namespace=team --tail=5 {SELECTED} --container=main --since=10m",
        ),
    ],
)
def test_logs_are_those_of_kubectl(recorded: RecordedCluster, arguments: list[str], command: str) -> None:
    run_cli("logs", *arguments)
    assert call(recorded, "logs") == command


def test_logs_of_a_workload_that_has_not_started_say_why(recorded: RecordedCluster) -> None:
    done = run_cli("logs", "new")
    assert done.code == 2
    assert "new has no container that has started (Ready is False, WaitingForDevices: none)" in done.err
    assert "see gpufleet explain new" in done.err


def test_unknown_workload_is_answered_with_names_that_are_close(recorded: RecordedCluster) -> None:
    for command in ("suspend", "resume", "logs"):
        assert 'GPUWorkload "trian" not found in namespace team: did you mean train?' in run_cli(command, "trian").err
