"""Errors of kubectl become messages that say what to do."""

import pytest

from gpufleet_testing.cli.clusters import RecordedCluster
from gpufleet_testing.cli.runner import run_cli

TELEMETRY = "/apis/gpufleet.dev/v1alpha1/gputelemetries"
FORBIDDEN = (
    'Error from server (Forbidden): gputelemetries.gpufleet.dev is forbidden: User "dev" cannot list resource '
    '"gputelemetries" in API group "gpufleet.dev" at the cluster scope'
)


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (
            """E1128 22:10:53.123456 1 memcache.go:265] couldn't get current server API group list
The connection to the server localhost:8080 was refused - did you specify the right host or port?""",
            ["no cluster responds: The connection to the server localhost:8080", "--context", "--from FILE"],
        ),
        (FORBIDDEN, ['User "dev" cannot list resource "gputelemetries"', "ask an administrator"]),
        (
            "Error from server (NotFound): the server could not find the requested resource",
            ["CustomResourceDefinitions of gpufleet.dev are not installed", "install the chart"],
        ),
        ("error: You must be logged in to the server (Unauthorized)", ["log in again"]),
        ("error: something else", ["kubectl: something else"]),
    ],
)
def test_failure_of_kubectl_is_one_line_with_a_cure(cluster: RecordedCluster, error: str, parts: list[str]) -> None:
    cluster.fail(TELEMETRY, error)
    done = run_cli("top")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert [part for part in parts if part not in done.err] == []


def test_unknown_context_is_answered_with_names_that_are_close(cluster: RecordedCluster) -> None:
    cluster.fail(TELEMETRY, 'error: context "prodd" does not exist')
    cluster.record("config-get-contexts", "prod\nstaging\n")
    done = run_cli("top", "--context", "prodd")
    assert done.err == 'error: context "prodd" not found: did you mean prod?\n'


def test_missing_kubectl_is_an_error_with_a_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    done = run_cli("top")
    assert done.code == 2
    assert "kubectl is not in PATH" in done.err


def test_connection_flags_before_and_after_the_command_reach_kubectl(cluster: RecordedCluster) -> None:
    cluster.fleet()
    run_cli("--kubeconfig", "k.yaml", "--context", "a", "top", "--context", "b", "--as", "ann", "--as-group", "g")
    (call,) = cluster.calls
    assert call.endswith("--kubeconfig=k.yaml --context=b --as=ann --as-group=g --request-timeout=30s")
