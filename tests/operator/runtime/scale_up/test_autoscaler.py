"""Writing placeholder pods and annotations of nodes."""

import asyncio
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, cast

import pytest

from gpufleet_api.condition import Condition, ConditionStatus
from gpufleet_api.workload_status import Explanation, WorkloadStatus
from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.kube.api import Api
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import ApiError, ConflictError, InvalidWriteError, NotFoundError, UnavailableError
from gpufleet_operator.model.state_types import Limits
from gpufleet_operator.runtime.scale_up.autoscaler import Autoscaler
from gpufleet_testing.agent.virtual_time import in_virtual_time
from gpufleet_testing.operator import make

PLACED = Condition(
    type="Placed",
    status=ConditionStatus.FALSE,
    reason="NoDevicesAvailable",
    message="0/0 GPUs are available.",
    observed_generation=1,
    last_transition_time="2026-01-02T03:00:00Z",
)
EXPLAINED = Explanation(message="0/0 GPUs are available.", devices_considered=0, devices_eligible=0)
WAITING = make.workload(placement={"scaleUp": True}, status=WorkloadStatus(conditions=[PLACED], explanation=EXPLAINED))


class Server:
    """An apiserver with one pod; it rejects what is created and applied if there is an error."""

    def __init__(self, error: ApiError | None = None) -> None:
        self.error = error
        self.calls: list[str] = []
        self.pod: dict[str, Any] = {}

    async def create(self, path: str, body: Mapping[str, Any]) -> Any:
        self.calls.append(f"create {path}")
        if self.error is not None:
            raise self.error
        self.pod = {**body, "metadata": {**body["metadata"], "uid": "uid-p", "resourceVersion": "100"}}
        return self.pod

    async def merge_patch(self, path: str, body: Mapping[str, Any]) -> Any:
        self.calls.append(f"patch {path.rpartition('/')[2]} {body['metadata']['uid']}")
        meta = {**self.pod["metadata"], "resourceVersion": "101"}
        return {**self.pod, "metadata": meta, "status": body["status"]}

    async def delete(self, path: str, options: Mapping[str, Any]) -> Any:
        self.calls.append(f"delete {path.rpartition('/')[0]} {options['preconditions']['uid']}")

    async def apply(self, path: str, body: Mapping[str, Any], *, force: bool) -> Any:
        self.calls.append(f"apply {path} {dict(body['metadata']['annotations'])} force={force}")
        if self.error is not None:
            raise self.error
        name = body["metadata"]["name"]
        return {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": "41", "managedFields": []}}


def connected(server: Server, cache: Cache, *, leads: bool = True) -> Autoscaler:
    return Autoscaler(cast("Api", server), cache, ServerClock(lambda: make.NOW), Limits(), may_write=lambda: leads)


def waiting() -> Cache:
    cache = Cache()
    cache.workloads.put(WAITING)
    cache.pods.put(make.pod(WAITING))
    return cache


async def test_placeholder_is_created_reported_and_deleted() -> None:
    server, cache = Server(), waiting()
    autoscaler = connected(server, cache)

    await autoscaler.write()
    await autoscaler.write()
    assert server.calls == ["create /api/v1/namespaces/ml/pods", "patch status uid-p"]
    (one,) = autoscaler.placeholders.items.values()
    assert one.reported

    cache.workloads.remove(WAITING.uid, "")
    await autoscaler.write()
    assert server.calls[2:] == ["delete /api/v1/namespaces/ml/pods uid-p"]
    assert not autoscaler.placeholders.items


async def test_standby_writes_nothing() -> None:
    server = Server()

    await connected(server, waiting(), leads=False).write()

    assert not server.calls


async def test_node_is_annotated_without_force() -> None:
    server, cache, pod = Server(ConflictError("another client", 409)), Cache(), make.pod()
    cache.nodes.put(make.node())
    cache.pods.put(pod)
    cache.telemetry.put(make.telemetry(assignments=[make.assignment(pod)]))
    autoscaler = connected(server, cache)

    await autoscaler.write()
    await autoscaler.write()

    mark = "{'cluster-autoscaler.kubernetes.io/scale-down-disabled': 'true'}"
    assert server.calls == [f"apply /api/v1/nodes/node-1 {mark} force=False"], "it is not tried again"


async def test_node_that_is_deleted_meanwhile_ends_nothing() -> None:
    cache, pods = Cache(), [make.pod(name="train-0"), make.pod(name="train-1")]
    for pod, name in zip(pods, ("node-1", "node-2"), strict=True):
        cache.nodes.put(make.node(name))
        cache.pods.put(pod)
        cache.telemetry.put(make.telemetry(name, assignments=[make.assignment(pod)]))

    class Removing(Server):
        async def apply(self, path: str, body: Mapping[str, Any], *, force: bool) -> Any:
            cache.nodes.remove("uid-node-2", "")
            return await super().apply(path, body, force=force)

    server = Removing(NotFoundError("gone", 404))
    await connected(server, cache).write()

    assert [call.split()[1] for call in server.calls] == ["/api/v1/nodes/node-1", "/api/v1/nodes/node-2"]


@pytest.mark.parametrize(
    ("error", "pauses"),
    [(InvalidWriteError("exceeded quota", 403), [30, 30]), (UnavailableError("no response"), [1, 1, 2, 4, 8, 16, 32])],
)
@in_virtual_time
async def test_failed_placeholder_is_created_again_after_a_pause(error: ApiError, pauses: list[int]) -> None:
    server = Server(error)
    autoscaler = connected(server, waiting())
    loop, begin = asyncio.get_running_loop(), asyncio.get_running_loop().time()
    attempts: list[float] = []

    while loop.time() - begin <= sum(pauses):
        before = len(server.calls)
        await autoscaler.write()
        attempts += [loop.time()] * (len(server.calls) - before)
        await asyncio.sleep(1)

    assert [round(b - a) for a, b in pairwise(attempts)] == pauses


@in_virtual_time
async def test_placeholder_that_fails_delays_no_other_of_its_namespace() -> None:
    class Failing(Server):
        async def create(self, path: str, body: Mapping[str, Any]) -> Any:
            if not self.calls:
                self.calls.append(body["metadata"]["name"])
                await asyncio.sleep(15)
                raise UnavailableError("no response")
            return await super().create(path, body)

    server, cache = Failing(), waiting()
    other = make.workload("other", placement={"scaleUp": True}, status=WAITING.status)
    cache.workloads.put(other)
    cache.pods.put(make.pod(other))
    autoscaler = connected(server, cache)

    for _ in range(17):
        await autoscaler.write()
        await asyncio.sleep(1)

    first, *then = server.calls
    assert then[:2] == ["create /api/v1/namespaces/ml/pods", "patch status uid-p"]
    names = [one.name for one in autoscaler.placeholders.items.values()]
    assert names
    assert names[0] != first


@in_virtual_time
async def test_hanging_webhook_of_a_namespace_delays_no_node() -> None:
    class Hanging(Server):
        async def create(self, path: str, body: Mapping[str, Any]) -> Any:
            del path, body
            await asyncio.Event().wait()

    server, cache, pod = Hanging(), waiting(), make.pod(make.workload("other"), name="other-0")
    cache.nodes.put(make.node())
    cache.pods.put(pod)
    cache.telemetry.put(make.telemetry(assignments=[make.assignment(pod, workload="other")]))

    await connected(server, cache).write()

    assert [call.split()[:2] for call in server.calls] == [["apply", "/api/v1/nodes/node-1"]]
