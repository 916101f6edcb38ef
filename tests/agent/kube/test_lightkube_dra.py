"""Slices and claims on the wire."""

import json

import httpx2
import pytest

from gpufleet_agent.kube.api import ObjectNotFoundError
from gpufleet_agent.kube.lightkube_api import LightkubeTelemetryApi
from gpufleet_agent.kube.resource_slices import PublishedSlice
from gpufleet_testing.agent.lightkube import missing, run

SLICE = {
    "metadata": {"name": "s", "uid": "uid-s", "generation": 2, "resourceVersion": "40"},
    "spec": {"pool": {"generation": 7}},
}
SLICES = "/apis/resource.k8s.io/v1/resourceslices"


def test_slice_is_applied_with_the_node_as_owner() -> None:
    applied: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/api/v1/nodes/node-1":
            return httpx2.Response(200, json={"metadata": {"name": "node-1", "uid": "uid-node"}})
        applied.append(request)
        return httpx2.Response(200, json=SLICE)

    async def scenario(api: LightkubeTelemetryApi) -> None:
        assert await api.apply_slice("s", {"driver": "d"}) == PublishedSlice("uid-s", 2, 40, 7)

    run(handler, scenario)
    (request,) = applied
    assert (request.method, request.url.path) == ("PATCH", f"{SLICES}/s")
    body = json.loads(request.content)
    assert body["spec"] == {"driver": "d"}
    assert [(owner["kind"], owner["uid"]) for owner in body["metadata"]["ownerReferences"]] == [("Node", "uid-node")]


def test_watch_of_a_slice_begins_with_the_list_and_misses_no_deletion() -> None:
    watched: list[httpx2.Request] = []
    events = [{"type": "MODIFIED", "object": SLICE}, {"type": "DELETED", "object": SLICE}]

    def handler(request: httpx2.Request) -> httpx2.Response:
        assert request.url.params["fieldSelector"] == "metadata.name=s"
        if "watch" not in request.url.params:
            return httpx2.Response(200, json={"metadata": {"resourceVersion": "39"}, "items": []})
        watched.append(request)
        return httpx2.Response(200, text="".join(json.dumps(event) + "\n" for event in events))

    async def scenario(api: LightkubeTelemetryApi) -> None:
        versions = api.watch_slice("s")
        assert [await anext(versions) for _ in range(3)] == [None, PublishedSlice("uid-s", 2, 40, 7), None]
        await versions.aclose()

    run(handler, scenario)
    assert watched[0].url.params["resourceVersion"] == "39"


def test_claim_that_does_not_exist_is_distinct_from_other_errors() -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/resourceclaims/gone"):
            return missing("resourceclaims", "gone")
        return httpx2.Response(200, json={"metadata": {"name": "c"}})

    async def scenario(api: LightkubeTelemetryApi) -> None:
        assert await api.get_claim("ml", "c") == {"metadata": {"name": "c"}}
        with pytest.raises(ObjectNotFoundError):
            await api.get_claim("ml", "gone")

    run(handler, scenario)
