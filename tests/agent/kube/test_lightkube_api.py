"""What goes over the wire, and what becomes of the answers; the transport is a function."""

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from lightkube import AsyncClient
from lightkube.config.kubeconfig import KubeConfig

from gpufleet_agent.kube.api import KubeError, ObjectNotFoundError, RejectedError
from gpufleet_agent.kube.lightkube_api import LightkubeTelemetryApi
from gpufleet_agent.kube.model import ObjectFormatError, PodEvent, TelemetryObject
from gpufleet_agent.kube.telemetry_watch import TelemetryWatch
from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_testing.agent.lightkube import failure, missing, run
from gpufleet_testing.agent.objects import assignment
from gpufleet_testing.agent.virtual_time import in_virtual_time

PATH = "/apis/gpufleet.dev/v1alpha1/gputelemetries"
OBJECT = {"metadata": {"name": "node-1", "uid": "uid-t", "generation": 4, "resourceVersion": "17"}}
PARSED = TelemetryObject("uid-t", 4, 17)


def test_get_reads_one_object_by_name() -> None:
    requests: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        return httpx2.Response(200, json=OBJECT)

    async def scenario(api: LightkubeTelemetryApi) -> None:
        assert await api.get() == PARSED

    run(handler, scenario)
    assert [(request.method, request.url.path) for request in requests] == [("GET", f"{PATH}/node-1")]


def test_ensure_applies_the_owner_and_neither_spec_nor_status() -> None:
    applied: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/api/v1/nodes/node-1":
            return httpx2.Response(200, json={"metadata": {"name": "node-1", "uid": "uid-node"}})
        applied.append(request)
        return httpx2.Response(201, json=OBJECT)

    async def scenario(api: LightkubeTelemetryApi) -> None:
        assert await api.ensure() == PARSED

    run(handler, scenario)
    (request,) = applied
    assert (request.method, request.url.path) == ("PATCH", f"{PATH}/node-1")
    assert request.headers["Content-Type"] == "application/apply-patch+yaml"
    assert dict(request.url.params) == {"force": "true", "fieldManager": "gpufleet-agent"}
    assert json.loads(request.content) == {
        "apiVersion": "gpufleet.dev/v1alpha1",
        "kind": "GPUTelemetry",
        "metadata": {
            "name": "node-1",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": "uid-node"}],
        },
    }


def test_apply_status_goes_to_the_subresource_by_server_side_apply() -> None:
    requests: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        return httpx2.Response(200, json=OBJECT)

    async def scenario(api: LightkubeTelemetryApi) -> None:
        assert await api.apply_status({"observedAt": "now", "devices": []}) == PARSED

    run(handler, scenario)
    (request,) = requests
    assert (request.method, request.url.path) == ("PATCH", f"{PATH}/node-1/status")
    assert request.headers["Content-Type"] == "application/apply-patch+yaml"
    assert dict(request.url.params) == {"force": "true", "fieldManager": "gpufleet-agent"}
    assert json.loads(request.content) == {
        "apiVersion": "gpufleet.dev/v1alpha1",
        "kind": "GPUTelemetry",
        "metadata": {"name": "node-1"},
        "status": {"observedAt": "now", "devices": []},
    }


def event(kind: str, version: int) -> str:
    metadata = {**OBJECT["metadata"], "resourceVersion": str(version)}
    return json.dumps({"type": kind, "object": {"metadata": metadata}}) + "\n"


def test_watch_of_this_object_yields_versions_and_the_deletion() -> None:
    requests: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        return httpx2.Response(200, text=event("ADDED", 17) + event("MODIFIED", 18) + event("DELETED", 19))

    async def scenario(api: LightkubeTelemetryApi) -> None:
        versions = api.watch()
        seen = [await anext(versions) for _ in range(3)]
        await versions.aclose()
        assert seen == [PARSED, TelemetryObject("uid-t", 4, 18), None]

    run(handler, scenario)
    parameters = dict(requests[0].url.params)
    assert 240 <= int(parameters.pop("timeoutSeconds")) <= 300
    assert parameters == {"watch": "true", "allowWatchBookmarks": "true", "fieldSelector": "metadata.name=node-1"}


@pytest.mark.parametrize(
    ("bookmarks", "shortest", "longest"),
    [
        pytest.param(0, 75, 75, id="dead from the start"),
        pytest.param(2, 195, 195, id="dead after two minutes"),
        pytest.param(99, 250, 311, id="alive"),
    ],
)
def test_a_watch_ends_by_itself_soon_after_the_last_bookmark(bookmarks: int, shortest: int, longest: int) -> None:
    """A connection without a FIN."""

    async def stream() -> AsyncIterator[bytes]:
        for version in range(bookmarks):
            await asyncio.sleep(60)
            yield event("BOOKMARK", version).encode()
        await asyncio.Event().wait()

    in_virtual_time(watch_until_its_end)(stream(), shortest, longest)


async def watch_until_its_end(stream: AsyncIterator[bytes], shortest: int, longest: int) -> None:
    config = KubeConfig.from_dict(
        {
            "clusters": [{"name": "c", "cluster": {"server": "http://apiserver"}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
    )
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, content=stream))
    api = LightkubeTelemetryApi("node-1", random.Random(1), AsyncClient(config, transport=transport))  # noqa: S311
    began = asyncio.get_running_loop().time()
    assert [version async for version in api.watch()] == []
    assert shortest <= asyncio.get_running_loop().time() - began <= longest
    await api.close()


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        pytest.param(
            missing("gputelemetries", "node-1"), ObjectNotFoundError, "404 NotFound: in words", id="no such object"
        ),
        pytest.param(
            httpx2.Response(404, text="404 page not found"), KubeError, "404", id="no such kind in this cluster"
        ),
        pytest.param(failure(404, "NotFound"), KubeError, "404", id="the same, said as a Status"),
        pytest.param(httpx2.Response(404, json={"error": "no route"}), KubeError, "404", id="a proxy's own 404"),
        pytest.param(
            httpx2.Response(404, text="<html>", headers={"Content-Type": "application/json"}),
            KubeError,
            "JSONDecodeError",
            id="no JSON, though it says so",
        ),
        pytest.param(httpx2.Response(404, content=b""), KubeError, "content-type", id="nothing says what it is"),
        pytest.param(failure(403, "Forbidden"), RejectedError, "403 Forbidden: in words", id="not allowed"),
        pytest.param(failure(429, "TooManyRequests"), KubeError, "429", id="too many requests"),
        pytest.param(httpx2.Response(503, text="no backend"), KubeError, "503", id="a proxy without a backend"),
        pytest.param(httpx2.Response(200, text='{"metadata": {'), KubeError, "Decode", id="cut off in the middle"),
        pytest.param(httpx2.Response(200, json={"metadata": {}}), ObjectFormatError, "uid", id="not an object of ours"),
    ],
)
def test_an_answer_that_is_none_becomes_an_error_of_ours(
    answer: httpx2.Response, error: type[Exception], message: str
) -> None:
    async def scenario(api: LightkubeTelemetryApi) -> None:
        for call in (api.get(), api.apply_status({})):
            with pytest.raises(error, match=f"(?i){message}") as raised:
                await call
            assert type(raised.value) is error

    run(lambda _: answer, scenario)


@pytest.mark.parametrize(
    ("answer", "pods"),
    [
        pytest.param(httpx2.Response(404, text="default backend - 404"), ["train-0"], id="of a load balancer"),
        pytest.param(httpx2.Response(404, json={"error": "no route"}), ["train-0"], id="of a load balancer, in JSON"),
        pytest.param(missing("gputelemetries", "node-1"), [], id="of the apiserver: the object is gone"),
    ],
)
def test_reservations_are_dropped_only_after_not_found_from_the_apiserver(
    answer: httpx2.Response, pods: list[str]
) -> None:
    answers = [answer]

    async def scenario(api: LightkubeTelemetryApi) -> None:
        own = TelemetryWatch(api, VersionSignal(), random.Random(1))  # noqa: S311 - jitter
        own.update(replace(PARSED, assignments=(assignment("train-0", "GPU-1"),)))
        with suppress(KubeError):
            await own.refresh()
        assert own.assignments is not None
        assert [each.pod for each in own.assignments] == pods

    run(lambda _: answers.pop(), scenario)


@pytest.mark.parametrize(
    "cause",
    [
        pytest.param(httpx2.ConnectError("rejected"), id="rejected"),
        pytest.param(httpx2.ReadTimeout("slow"), id="slow"),
        pytest.param(OSError(24, "Too many open files"), id="the token file can't be opened"),
        pytest.param(PermissionError(13, "Permission denied"), id="the token file can't be read"),
    ],
)
def test_no_answer_becomes_an_error_of_ours(cause: Exception) -> None:
    def handler(_: httpx2.Request) -> httpx2.Response:
        raise cause

    async def scenario(api: LightkubeTelemetryApi) -> None:
        with pytest.raises(KubeError, match=type(cause).__name__):
            await api.get()
        with pytest.raises(KubeError, match=type(cause).__name__):
            await anext(api.watch())

    run(handler, scenario)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(
            httpx2.Response(
                200, text=json.dumps({"type": "ERROR", "object": {"code": 410, "message": "too old"}}) + "\n"
            ),
            id="an error event inside the stream",
        ),
        pytest.param(failure(500), id="a rejection of the watch"),
        pytest.param(httpx2.Response(200, text='{"type": "MODIFIED", "obj'), id="a line cut off in the middle"),
    ],
)
def test_a_watch_that_fails_raises_and_leaves_starting_again_to_the_caller(answer: httpx2.Response) -> None:
    async def scenario(api: LightkubeTelemetryApi) -> None:
        with pytest.raises(KubeError):
            async for _ in api.watch():
                pass

    run(lambda _: answer, scenario)


def test_missing_configuration_is_named_in_the_error(monkeypatch: pytest.MonkeyPatch, short_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(short_path / "absent"))
    monkeypatch.setenv("HOME", str(short_path))
    with pytest.raises(KubeError, match="no configuration for the apiserver"):
        LightkubeTelemetryApi("node-1", random.Random(1))  # noqa: S311 - jitter


EVENT = PodEvent(namespace="ml", pod="train-0", pod_uid="uid-0", reason="DeviceHeld", message="held by another")


def test_event_names_pod_and_node_and_is_unique_per_pod_and_reason() -> None:
    requests: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        return httpx2.Response(201, json=json.loads(request.content))

    async def scenario(api: LightkubeTelemetryApi) -> None:
        await api.create_event(EVENT)
        await api.create_event(replace(EVENT, message="x" * 5000))
        await api.create_event(replace(EVENT, reason="ReservationConflict"))
        await api.create_event(replace(EVENT, pod_uid="uid-1"))
        await api.create_event(replace(EVENT, episode="again"))
        await api.create_event(replace(EVENT, pod="a." * 126 + "b"))

    run(handler, scenario)
    assert {(request.method, request.url.path) for request in requests} == {("POST", "/api/v1/namespaces/ml/events")}
    first, second, *others = (json.loads(request.content) for request in requests)
    assert first["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": "ml",
        "name": "train-0",
        "uid": "uid-0",
    }
    assert (first["type"], first["reason"], first["message"]) == ("Warning", "DeviceHeld", "held by another")
    assert first["source"] == {"component": "gpufleet-agent", "host": "node-1"}
    assert first["count"] == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first["firstTimestamp"])
    assert first["metadata"]["name"] == second["metadata"]["name"]
    assert len(second["message"]) == 1024
    names = {body["metadata"]["name"] for body in (first, *others)}
    assert len(names) == 5
    assert all(re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", name) for name in names)


def test_existing_event_is_not_an_error_and_other_rejections_are() -> None:
    answers = [failure(409, "AlreadyExists"), missing("namespaces", "ml"), failure(403, "Forbidden"), failure(500)]

    async def scenario(api: LightkubeTelemetryApi) -> None:
        await api.create_event(EVENT)
        with pytest.raises(ObjectNotFoundError):
            await api.create_event(EVENT)
        with pytest.raises(RejectedError, match="403"):
            await api.create_event(EVENT)
        with pytest.raises(KubeError, match="500") as raised:
            await api.create_event(EVENT)
        assert not isinstance(raised.value, RejectedError)

    run(lambda request: answers.pop(0), scenario)


def test_claimable_devices_are_those_of_the_nodes_slices() -> None:
    requests: list[httpx2.Request] = []
    device = {"name": "gpu-0", "attributes": {"uuid": {"string": "GPU-0"}}}
    spec = {"driver": "gpu.nvidia.com", "pool": {"name": "p"}, "devices": [device]}
    found = {"metadata": {"name": "s"}, "spec": spec}

    def handler(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        return httpx2.Response(200, json={"metadata": {}, "items": [found]})

    async def scenario(api: LightkubeTelemetryApi) -> None:
        assert await api.claimable_devices() == {("gpu.nvidia.com", "p", "gpu-0"): {"GPU-0"}}

    run(handler, scenario)
    (request,) = requests
    assert request.url.path == "/apis/resource.k8s.io/v1/resourceslices"
    assert request.url.params["fieldSelector"] == "spec.nodeName=node-1"


def test_api_without_slices_is_an_error_to_retry() -> None:
    async def scenario(api: LightkubeTelemetryApi) -> None:
        with pytest.raises(KubeError):
            await api.claimable_devices()

    run(lambda _: httpx2.Response(404, text="404 page not found"), scenario)
