"""Claims, devices and the kubelet's side of the DRA API, as tests of the driver need them."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypedDict, Unpack

from gpufleet_agent.devices.base import DeviceInfo, MemoryModel, Sample
from gpufleet_agent.dra.devices import ClaimableGpu
from gpufleet_agent.dra.prepared_claim import PreparedClaim, PreparedDevice
from gpufleet_agent.dra.server import DriverSockets
from gpufleet_agent.kube.api import KubeError, ObjectNotFoundError
from gpufleet_agent.kube.model import Assignment, TelemetryObject
from gpufleet_agent.kube.resource_claims import AllocatedClaim, AllocatedDevice, ConsumerPod
from gpufleet_agent.kube.resource_slices import PublishedSlice
from gpufleet_agent.proto import dra_health_pb2 as health_pb
from gpufleet_agent.proto import dra_pb2 as pb
from gpufleet_agent.proto import plugin_registration_pb2 as registration_pb
from gpufleet_agent.sampling.snapshot import DeviceSnapshot, HealthReason, HealthSnapshot, HealthState
from gpufleet_api.names import DRA_DRIVER
from gpufleet_common.device_ids import device_name
from gpufleet_e2e.fakes.grpc_sockets import unix_channel
from gpufleet_testing.agent.kube_apis import WatchedObjectApi

NODE = "node-1"


class InfoFields(TypedDict, total=False):
    uuid: str
    architecture: str
    compute_capability: str
    pci_bus_id: str
    numa_node: int
    nvlink_peers: tuple[str, ...]
    memory_model: MemoryModel
    parent: str
    profile: str


def gpu(
    index: int, memory_mib: int | None = 80_000, *, faults: tuple[str, ...] = (), may_recover: bool = True
) -> ClaimableGpu:
    """Builds device `GPU-<index>` of the node."""
    return ClaimableGpu(f"GPU-{index}", index, memory_mib, faults, may_recover)


def gpus(*found: ClaimableGpu) -> dict[str, ClaimableGpu]:
    return {device_name(each.uuid): each for each in found}


def claim(pod: str, *devices: str, memory_mib: int | None = None) -> AllocatedClaim:
    """Builds the claim of pod `ml/<pod>` with these UUIDs, as allocated."""
    return AllocatedClaim(
        namespace="ml",
        name=f"claim-{pod}",
        uid=f"claim-uid-{pod}",
        pods=(ConsumerPod(pod, f"uid-{pod}"),),
        devices=tuple(AllocatedDevice("gpu", device_name(uuid), f"share-{uuid}", memory_mib) for uuid in devices),
    )


def prepared(pod: str, *devices: str, memory_mib: int | None = None) -> PreparedClaim:
    """Builds the same claim as prepared."""
    allocated = claim(pod, *devices)
    return PreparedClaim(
        namespace=allocated.namespace,
        name=allocated.name,
        uid=allocated.uid,
        pods=allocated.pods,
        devices=tuple(PreparedDevice("gpu", uuid, f"share-{uuid}", memory_mib) for uuid in devices),
        env={"gpu": {"NVIDIA_VISIBLE_DEVICES": ",".join(devices)}},
    )


def claim_json(found: AllocatedClaim) -> dict[str, Any]:
    """Returns a claim as the apiserver does."""
    results = [
        {
            "request": each.request,
            "driver": DRA_DRIVER,
            "pool": NODE,
            "device": each.device,
            "shareID": each.share_id,
            **({} if each.memory_mib is None else {"consumedCapacity": {"memory": f"{each.memory_mib}Mi"}}),
        }
        for each in found.devices
    ]
    return {
        "metadata": {"namespace": found.namespace, "name": found.name, "uid": found.uid},
        "status": {
            "allocation": {"devices": {"results": results}},
            "reservedFor": [{"resource": "pods", "name": pod.name, "uid": pod.uid} for pod in found.pods],
        },
    }


def snapshot_of(
    index: int, *, faults: tuple[HealthReason, ...] = (), reserved_mib: int | None = None, **info: Unpack[InfoFields]
) -> DeviceSnapshot:
    """Builds the snapshot of a device with 80,000 MiB."""
    description = replace(DeviceInfo(f"GPU-{index}", index, "NVIDIA H100"), **info)
    state = HealthState.UNHEALTHY if faults else HealthState.HEALTHY
    sample = Sample(
        uuid=description.uuid, taken_at=0, memory_total_mib=80_000, memory_used_mib=0, memory_reserved_mib=reserved_mib
    )
    return DeviceSnapshot(description, HealthSnapshot(state, faults), sample, 0.0)


class DraObjectApi(WatchedObjectApi):
    """The apiserver as a DRA driver sees it: claims, one slice, and the GPUTelemetry object."""

    def __init__(self, *assignments: Assignment) -> None:
        super().__init__()
        self.object = TelemetryObject("uid-node", 1, 1, assignments)
        self.claims: dict[tuple[str, str], Mapping[str, Any]] = {}
        self.claim_failures = 0
        """How many of the next reads of claims fail."""
        self.slice_failures = 0
        self.spec: Mapping[str, Any] | None = None
        self.published: PublishedSlice | None = None
        self.applied = 0
        self._versions: list[PublishedSlice | None] = []
        self._slice_changed = asyncio.Condition()

    def add(self, *found: AllocatedClaim) -> None:
        for each in found:
            self.claims[each.namespace, each.name] = claim_json(each)

    async def get_claim(self, namespace: str, name: str) -> Mapping[str, Any]:
        if self.claim_failures:
            self.claim_failures -= 1
            raise KubeError("away")
        if (namespace, name) not in self.claims:
            raise ObjectNotFoundError("not found")
        return self.claims[namespace, name]

    async def apply_slice(self, name: str, spec: Mapping[str, Any]) -> PublishedSlice:
        if self.slice_failures:
            self.slice_failures -= 1
            raise KubeError("away")
        self.applied += 1
        old = self.published
        uid, generation = ("slice-1", 1) if old is None else (old.uid, old.generation + 1)
        if old is None and self.applied > 1:
            uid = f"slice-{self.applied}"
        await self._set(PublishedSlice(uid, generation, self.applied * 10, spec["pool"]["generation"]), spec)
        assert self.published is not None
        return self.published

    async def watch_slice(self, name: str) -> AsyncGenerator[PublishedSlice | None, None]:
        seen = len(self._versions)
        yield self.published
        while True:
            async with self._slice_changed:
                await self._slice_changed.wait_for(lambda: len(self._versions) > seen)  # noqa: B023 - read at once
            yield self._versions[seen]
            seen += 1

    async def wipe_slice(self) -> None:
        """Deletes the slice, as a starting kubelet does."""
        await self._set(None, None)

    async def until_slice(self, applied: int) -> Mapping[str, Any]:
        """Waits until the slice was written so often; returns its spec."""
        async with asyncio.timeout(10), self._slice_changed:
            await self._slice_changed.wait_for(lambda: self.applied >= applied and self.spec is not None)
        assert self.spec is not None
        return self.spec

    async def _set(self, published: PublishedSlice | None, spec: Mapping[str, Any] | None) -> None:
        async with self._slice_changed:
            self.published, self.spec = published, spec
            self._versions.append(published)
            self._slice_changed.notify_all()


@dataclass
class DraKubelet:
    """The kubelet's side of a driver: registers it and calls it."""

    sockets: DriverSockets
    endpoint: str = ""
    services: tuple[str, ...] = ()
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def register(self) -> registration_pb.PluginInfo:
        """Finds the registration socket, asks who it is, and accepts it."""
        async with asyncio.timeout(10):
            while not self.sockets.registration.is_socket():  # noqa: ASYNC110 - as the kubelet watches the directory
                await asyncio.sleep(0.01)
        async with unix_channel(self.sockets.registration) as channel:
            info: registration_pb.PluginInfo = await channel.unary_unary(
                "/pluginregistration.Registration/GetInfo",
                registration_pb.InfoRequest.SerializeToString,
                registration_pb.PluginInfo.FromString,
            )(registration_pb.InfoRequest(), timeout=10)
            await channel.unary_unary(
                "/pluginregistration.Registration/NotifyRegistrationStatus",
                registration_pb.RegistrationStatus.SerializeToString,
                registration_pb.RegistrationStatusResponse.FromString,
            )(registration_pb.RegistrationStatus(plugin_registered=True), timeout=10)
        return info

    async def prepare(self, *claims: AllocatedClaim) -> Mapping[str, pb.NodePrepareResourceResponse]:
        request = pb.NodePrepareResourcesRequest(claims=[_reference(each) for each in claims])
        async with unix_channel(self.sockets.driver) as channel:
            response: pb.NodePrepareResourcesResponse = await channel.unary_unary(
                "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodePrepareResources",
                pb.NodePrepareResourcesRequest.SerializeToString,
                pb.NodePrepareResourcesResponse.FromString,
            )(request, timeout=45)
        return response.claims

    async def unprepare(self, *claims: AllocatedClaim) -> Mapping[str, pb.NodeUnprepareResourceResponse]:
        request = pb.NodeUnprepareResourcesRequest(claims=[_reference(each) for each in claims])
        async with unix_channel(self.sockets.driver) as channel:
            response: pb.NodeUnprepareResourcesResponse = await channel.unary_unary(
                "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodeUnprepareResources",
                pb.NodeUnprepareResourcesRequest.SerializeToString,
                pb.NodeUnprepareResourcesResponse.FromString,
            )(request, timeout=45)
        return response.claims

    async def health(self) -> "asyncio.Queue[health_pb.NodeWatchResourcesResponse]":
        """Opens the health stream; its messages arrive in the queue until the kubelet ends."""
        channel = await self._stack.enter_async_context(unix_channel(self.sockets.driver))
        stream = channel.unary_stream(
            "/v1alpha1.DRAResourceHealth/NodeWatchResources",
            health_pb.NodeWatchResourcesRequest.SerializeToString,
            health_pb.NodeWatchResourcesResponse.FromString,
        )(health_pb.NodeWatchResourcesRequest())
        received: asyncio.Queue[health_pb.NodeWatchResourcesResponse] = asyncio.Queue()

        async def follow() -> None:
            async for message in stream:
                received.put_nowait(message)

        task = asyncio.create_task(follow())

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._stack.push_async_callback(end)
        return received


def _reference(found: AllocatedClaim) -> pb.Claim:
    return pb.Claim(namespace=found.namespace, name=found.name, uid=found.uid)
