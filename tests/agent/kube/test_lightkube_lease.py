"""The Lease of the agent, as it goes over the wire."""

import json
from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from gpufleet_agent.kube.api import KubeError, RejectedError
from gpufleet_agent.kube.lightkube_api import LightkubeTelemetryApi
from gpufleet_agent.kube.model import LeaseRenewal
from gpufleet_common import timestamps
from gpufleet_testing.agent.lightkube import failure, run

RENEWAL = LeaseRenewal(
    namespace="gpufleet-system",
    holder="gpufleet-agent-x7k2p",
    duration_seconds=90,
    observed_at="2026-01-02T03:04:05.678901Z",
    telemetry_uid="uid-t",
)


def test_renewal_applies_the_lease_of_the_node() -> None:
    requests: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        return httpx2.Response(200, json={"metadata": {"name": "gpufleet-agent.node-1"}})

    async def scenario(api: LightkubeTelemetryApi) -> None:
        await api.renew_lease(RENEWAL)

    run(handler, scenario)
    (request,) = requests
    path = "/apis/coordination.k8s.io/v1/namespaces/gpufleet-system/leases/gpufleet-agent.node-1"
    assert (request.method, request.url.path) == ("PATCH", path)
    assert request.headers["Content-Type"] == "application/apply-patch+yaml"
    assert dict(request.url.params) == {"force": "true", "fieldManager": "gpufleet-agent"}
    body = json.loads(request.content)
    renewed = body["spec"].pop("renewTime")
    assert timestamps.micros(timestamps.parse(renewed)) == renewed
    assert abs(datetime.now(UTC) - timestamps.parse(renewed)) < timedelta(minutes=1)
    assert body == {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": "gpufleet-agent.node-1",
            "namespace": "gpufleet-system",
            "labels": {"gpufleet.dev/lease": "agent"},
            "annotations": {"gpufleet.dev/observed-at": "2026-01-02T03:04:05.678901Z"},
            "ownerReferences": [
                {"apiVersion": "gpufleet.dev/v1alpha1", "kind": "GPUTelemetry", "name": "node-1", "uid": "uid-t"}
            ],
        },
        "spec": {"holderIdentity": "gpufleet-agent-x7k2p", "leaseDurationSeconds": 90},
    }


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        pytest.param(failure(403, "Forbidden"), RejectedError, id="not allowed"),
        pytest.param(failure(503), KubeError, id="overloaded"),
    ],
)
def test_failed_renewal_raises_an_error_of_ours(answer: httpx2.Response, error: type[Exception]) -> None:
    async def scenario(api: LightkubeTelemetryApi) -> None:
        with pytest.raises(error) as raised:
            await api.renew_lease(RENEWAL)
        assert type(raised.value) is error

    run(lambda _: answer, scenario)
