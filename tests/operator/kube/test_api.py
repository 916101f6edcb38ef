"""Requests and responses, and the error of each response."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import httpx2
import pytest
from aiohttp import web
from lightkube.config.kubeconfig import KubeConfig
from lightkube.config.models import Cluster, User

from gpufleet_api.condition import Condition, ConditionStatus
from gpufleet_operator.kube import errors, patches
from gpufleet_operator.kube.api import Api
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.writer import ApiWriter
from gpufleet_operator.model.objects import NodeCondition
from gpufleet_operator.model.report_actions import WriteNodeCondition, WriteTelemetryConditions
from gpufleet_testing.agent.virtual_time import in_virtual_time
from gpufleet_testing.operator.http_apiserver import HandledRequests

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Handler = Callable[[httpx2.Request], httpx2.Response]


def connect(handler: Handler, clock: ServerClock | None = None) -> Api:
    return Api(HandledRequests(handler), clock or ServerClock(lambda: NOW))


def status(code: int, reason: str = "", message: str = "no") -> httpx2.Response:
    return httpx2.Response(code, json={"kind": "Status", "reason": reason, "message": message, "code": code})


MEANINGS: list[tuple[int, str, type[errors.ApiError]]] = [
    (400, "", errors.InvalidWriteError),
    (401, "", errors.UnauthorizedError),
    (403, "Forbidden", errors.ForbiddenReadError),
    (404, "NotFound", errors.NotFoundError),
    (409, "Conflict", errors.ConflictError),
    (409, "AlreadyExists", errors.AlreadyExistsError),
    (410, "Expired", errors.GoneError),
    (422, "Invalid", errors.InvalidWriteError),
    (429, "", errors.UnavailableError),
    (500, "", errors.UnavailableError),
    (504, "Timeout", errors.UnavailableError),
]


@pytest.mark.parametrize(("code", "reason", "kind"), MEANINGS)
async def test_each_status_code_has_its_error(code: int, reason: str, kind: type[errors.ApiError]) -> None:
    api = connect(lambda _: status(code, reason, "because"))

    with pytest.raises(errors.ApiError, match="because") as caught:
        await api.get("/x")

    assert type(caught.value) is kind
    assert caught.value.code == code


async def test_a_hundred_requests_that_hang_delay_no_other() -> None:
    """As with webhooks that hang in several namespaces, and without a limit of the client."""
    hanging, released = asyncio.Semaphore(0), asyncio.Event()

    async def respond(request: web.Request) -> web.Response:
        if request.path == "/hangs":
            hanging.release()
            await released.wait()
        return web.json_response({})

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", respond)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    config = KubeConfig.from_one(cluster=Cluster(server=url), user=User(token="t")).get()
    assert config is not None
    api = Api.connect(config, ServerClock())
    requests = [asyncio.create_task(api.get("/hangs")) for _ in range(110)]
    try:
        async with asyncio.timeout(10):
            for _ in requests:
                await hanging.acquire()
            assert await api.get("/answers") == {}
    finally:
        released.set()
        await asyncio.gather(*requests)
        await api.close()
        await runner.cleanup()


async def test_no_response_is_unavailable() -> None:
    def handler(_: httpx2.Request) -> httpx2.Response:
        raise aiohttp.SocketTimeoutError("late")

    with pytest.raises(errors.UnavailableError, match="SocketTimeoutError: late"):
        await connect(handler).get("/x")


async def test_an_error_page_that_is_not_json_is_quoted() -> None:
    with pytest.raises(errors.UnavailableError, match="Bad Gateway"):
        await connect(lambda _: httpx2.Response(502, text="Bad Gateway")).get("/x")


@pytest.mark.parametrize("code", [401, 403])
@in_virtual_time
async def test_rejections_of_an_apiserver_that_starts_are_retried(code: int) -> None:
    """It accepts connections before it has read its roles and policies."""
    responds = False

    def handler(_: httpx2.Request) -> httpx2.Response:
        if not responds:
            raise aiohttp.ClientConnectionError("refused")
        return status(code, "", "not yet ready to handle request")

    api = connect(handler)
    with pytest.raises(errors.UnavailableError):
        await api.get("/x")
    responds = True
    with pytest.raises(errors.UnavailableError, match="not yet ready") as caught:
        await api.create("/x", {})
    assert caught.value.code == code

    await asyncio.sleep(31)
    with pytest.raises((errors.UnauthorizedError, errors.InvalidWriteError)):
        await api.create("/x", {})


async def test_a_list_is_read_page_by_page() -> None:
    asked: list[dict[str, str]] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        asked.append(dict(request.url.params))
        last = "continue" in request.url.params
        meta = {"resourceVersion": "9", **({} if last else {"continue": "token"})}
        return httpx2.Response(200, json={"metadata": meta, "items": [{"page": len(asked)}]})

    pages = [page async for page in connect(handler).pages("/x", {"labelSelector": "a"}, 250)]

    assert [(p.items, p.version) for p in pages] == [([{"page": 1}], "9"), ([{"page": 2}], "9")]
    assert asked == [
        {"labelSelector": "a", "limit": "250"},
        {"labelSelector": "a", "limit": "250", "continue": "token"},
    ]


async def watch(lines: list[Any]) -> list[tuple[str, Any]]:
    content = "\n".join(json.dumps(line) for line in lines).encode()

    events = connect(lambda _: httpx2.Response(200, content=content)).watch("/x", {}, "5", 300)
    return [event async for event in events]


async def test_a_watch_yields_events_and_bookmarks() -> None:
    lines = [{"type": "ADDED", "object": {"a": 1}}, {"type": "BOOKMARK", "object": {"b": 2}}]

    assert await watch(lines) == [("ADDED", {"a": 1}), ("BOOKMARK", {"b": 2})]


@pytest.mark.parametrize("code", [410, 401, 403, 500, 504, None])
async def test_an_error_within_a_watch_has_the_objects_listed_again(code: int | None) -> None:
    status = {"message": "no leader"} if code is None else {"code": code, "message": "no leader"}
    with pytest.raises(errors.GoneError, match="no leader"):
        await watch([{"type": "ERROR", "object": status}])


async def test_a_watch_requests_bookmarks_from_its_version() -> None:
    asked: list[httpx2.QueryParams] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.params)
        return httpx2.Response(200)

    async for _ in connect(handler).watch("/x", {"fieldSelector": "f"}, "5", 300):
        pass

    assert dict(asked[0]) == {
        "fieldSelector": "f",
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": "5",
        "timeoutSeconds": "300",
    }


class TestCluster:
    PATCH = (
        {"op": "test", "path": "/metadata/uid", "value": "u"},
        {"op": "test", "path": "/metadata/generation", "value": 3},
        {"op": "add", "path": "/spec", "value": {}},
    )

    async def patch(self, generation: int) -> Any:
        current = {"metadata": {"uid": "u", "generation": generation}}

        def handler(request: httpx2.Request) -> httpx2.Response:
            if request.method == "PATCH":
                assert request.headers["Content-Type"] == "application/json-patch+json"
                return status(422, "Invalid", "the server rejected our request")
            return httpx2.Response(200, json=current)

        return await ApiWriter(connect(handler)).patch_telemetry("node-1", self.PATCH)

    async def test_a_failed_patch_test_is_a_conflict_with_the_current_object(self) -> None:
        with pytest.raises(errors.PatchConflictError) as caught:
            await self.patch(generation=4)

        assert caught.value.current["metadata"]["generation"] == 4

    async def test_a_422_with_passing_tests_is_an_invalid_write(self) -> None:
        with pytest.raises(errors.InvalidWriteError, match="rejected"):
            await self.patch(generation=3)

    async def test_delete_has_preconditions_and_no_grace_period(self) -> None:
        sent: list[Any] = []

        def handler(request: httpx2.Request) -> httpx2.Response:
            sent.append((request.method, request.url.path, json.loads(request.content)))
            return httpx2.Response(200, json={})

        await ApiWriter(connect(handler)).delete_pod("ml", "train-0", "u", "7")

        ((method, path, body),) = sent
        assert (method, path) == ("DELETE", "/api/v1/namespaces/ml/pods/train-0")
        assert body["preconditions"] == {"uid": "u", "resourceVersion": "7"}
        assert "gracePeriodSeconds" not in body

    async def test_create_pod_validates_fields_strictly(self) -> None:
        body = {"metadata": {"namespace": "ml", "name": "train-0"}}

        def handler(request: httpx2.Request) -> httpx2.Response:
            assert request.url.params["fieldValidation"] == "Strict"
            return status(400, "BadRequest")

        with pytest.raises(errors.InvalidWriteError):
            await ApiWriter(connect(handler)).create_pod(body)

    @pytest.mark.parametrize(("owner", "ours"), [("u", True), ("other", False)])
    @pytest.mark.parametrize("kind", ["Pod", "Service"])
    async def test_create_returns_an_existing_object_of_the_same_owner(self, owner: str, ours: bool, kind: str) -> None:
        body = {"kind": kind, "metadata": {"namespace": "ml", "name": "train-0", "ownerReferences": [{"uid": "u"}]}}
        found = {"metadata": {"ownerReferences": [{"uid": owner}]}}

        def handler(request: httpx2.Request) -> httpx2.Response:
            return status(409, "AlreadyExists") if request.method == "POST" else httpx2.Response(200, json=found)

        writer = ApiWriter(connect(handler))
        create = writer.create_pod(body) if kind == "Pod" else writer.create_service(body)
        if ours:
            assert await create == found
        else:
            with pytest.raises(errors.InvalidWriteError, match=f"{kind} train-0 already exists with another owner"):
                await create


class TestClock:
    SKEWS = ((0.9, 0, 0.9), (0, 0, 0), (3600, 3600, 3601), (-3600, -3600, -3599))

    @pytest.mark.parametrize(("skew", "least", "most"), SKEWS)
    async def test_a_wrong_local_clock_is_corrected_to_the_nearest_bound(
        self, skew: float, least: float, most: float
    ) -> None:
        clock = ServerClock(lambda: NOW)
        date = (NOW + timedelta(seconds=skew)).strftime("%a, %d %b %Y %H:%M:%S GMT")

        await connect(lambda _: httpx2.Response(200, json={}, headers={"Date": date}), clock).get("/x")

        assert least <= (clock.now() - NOW).total_seconds() <= most

    def test_a_slow_response_corrects_nothing(self) -> None:
        """Its date is half a minute old when it arrives."""
        clock = ServerClock(lambda: NOW)

        clock.observe((NOW - timedelta(seconds=30)).strftime("%a, %d %b %Y %H:%M:%S GMT"), NOW - timedelta(seconds=30))

        assert clock.now() == NOW

    @pytest.mark.parametrize("date", [None, "yesterday"])
    def test_no_date_changes_nothing(self, date: str | None) -> None:
        clock = ServerClock(lambda: NOW)

        clock.observe(date, NOW)

        assert clock.now() == NOW


class TestReports:
    """Writes of conditions, and evictions."""

    @staticmethod
    def recorded(code: int = 200) -> tuple[ApiWriter, list[httpx2.Request]]:
        sent: list[httpx2.Request] = []

        def handler(request: httpx2.Request) -> httpx2.Response:
            sent.append(request)
            return httpx2.Response(200, json={}) if code == 200 else status(code, "", "Cannot evict pod")

        return ApiWriter(connect(handler)), sent

    async def test_conditions_of_telemetry_are_applied_with_force(self) -> None:
        writer, sent = self.recorded()
        condition = Condition(
            type="Fresh", status=ConditionStatus.TRUE, reason="Ready", last_transition_time="2026-01-01T00:00:00Z"
        )
        action = WriteTelemetryConditions("node-1", "uid-t", (condition,))

        await writer.apply_telemetry_status("node-1", patches.telemetry_conditions(action))

        (request,) = sent
        assert request.url.path == "/apis/gpufleet.dev/v1alpha1/gputelemetries/node-1/status"
        assert dict(request.url.params) == {"fieldManager": "gpufleet-operator", "force": "true"}
        assert request.headers["Content-Type"] == "application/apply-patch+yaml"
        body = json.loads(request.content)
        assert body["metadata"] == {"name": "node-1", "uid": "uid-t"}
        assert [c["type"] for c in body["status"]["conditions"]] == ["Fresh"]

    @pytest.mark.parametrize("removed", [False, True])
    async def test_node_condition_is_merged_with_those_of_others(self, removed: bool) -> None:
        writer, sent = self.recorded()
        wanted = None if removed else NodeCondition(ConditionStatus.FALSE, "XidError", "m", "2026-01-01T00:00:00Z")

        await writer.patch_node_status("node-1", patches.node_condition(WriteNodeCondition("node-1", "uid-n", wanted)))

        (request,) = sent
        assert request.url.path == "/api/v1/nodes/node-1/status"
        assert request.headers["Content-Type"] == "application/strategic-merge-patch+json"
        (entry,) = json.loads(request.content)["status"]["conditions"]
        assert entry["type"] == "GPUHealthy"
        assert (entry.get("status"), entry.get("$patch")) == ((None, "delete") if removed else ("False", None))

    @pytest.mark.parametrize(("uid", "kind"), [("uid-2", errors.NotFoundError), ("uid-1", errors.InvalidWriteError)])
    async def test_object_that_was_created_again_is_not_found(self, uid: str, kind: type[errors.ApiError]) -> None:
        """The apiserver reports another uid as an invalid object, as it does a rejected field."""

        def handler(request: httpx2.Request) -> httpx2.Response:
            if request.method == "GET":
                return httpx2.Response(200, json={"metadata": {"name": "train", "uid": uid}})
            return status(422, "Invalid", "metadata.uid: Invalid value: field is immutable")

        writer, meta = ApiWriter(connect(handler)), {"name": "train", "namespace": "ml", "uid": "uid-1"}

        for write in (
            writer.apply_service({"metadata": meta}),
            writer.apply_telemetry_status("train", {"metadata": meta}),
            writer.patch_node_status("train", {"metadata": meta}),
        ):
            with pytest.raises(errors.ApiError) as caught:
                await write
            assert type(caught.value) is kind

    async def test_eviction_names_the_uid(self) -> None:
        writer, sent = self.recorded()

        await writer.evict_pod("ml", "train-0", "uid-p")

        (request,) = sent
        assert (request.method, request.url.path) == ("POST", "/api/v1/namespaces/ml/pods/train-0/eviction")
        body = json.loads(request.content)
        assert (body["kind"], body["deleteOptions"]["preconditions"]) == ("Eviction", {"uid": "uid-p"})

    @pytest.mark.parametrize(
        ("code", "kind"),
        [(429, errors.InvalidWriteError), (503, errors.UnavailableError)],
        ids=["budget", "no answer"],
    )
    async def test_eviction_that_a_budget_rejects_is_an_answer(self, code: int, kind: type[Exception]) -> None:
        writer, _ = self.recorded(code)

        with pytest.raises(kind, match="Cannot evict pod"):
            await writer.evict_pod("ml", "train-0", "uid-p")


@pytest.mark.parametrize(("seconds", "silence"), [(300, 90), (30, 45)])
async def test_watch_that_is_silent_after_its_end_hangs(seconds: int, silence: float) -> None:
    timeouts: list[float | None] = []

    class Silent:
        def send(self, *_: object, timeout: aiohttp.ClientTimeout, **__: object) -> Any:
            timeouts.append(timeout.sock_read)
            raise aiohttp.SocketTimeoutError("silent")

        async def close(self) -> None: ...

    with pytest.raises(errors.UnavailableError, match="silent"):
        await anext(Api(Silent(), ServerClock()).watch("/x", {}, "5", seconds))
    assert timeouts == [silence]
