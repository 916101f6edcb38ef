"""A scripted kubelet behind real unix sockets: registers plugins, admits pods, lists what containers hold."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from gpufleet_agent.podresources.listing import ContainerKey
from gpufleet_agent.proto import deviceplugin_pb2, podresources_pb2
from gpufleet_api.names import DRA_DRIVER, RESOURCE
from gpufleet_e2e.fakes.grpc_sockets import unix_address, unix_channel

AnyMessage = TypeVar("AnyMessage", bound=Message)


class RejectedPodError(Exception):
    """The plugin rejected the pod, as the kubelet would write it into the pod's status."""


@dataclass
class KubeletPlugin:
    """A plugin as its kubelet knows it."""

    channel: grpc.aio.Channel
    options: deviceplugin_pb2.DevicePluginOptions
    healthy: frozenset[str] = frozenset()
    unhealthy: frozenset[str] = frozenset()
    topology: bool = False
    lists: int = 0
    stopped: bool = False

    async def call(
        self, method: str, request: Message, response: type[AnyMessage], timeout_seconds: float = 20
    ) -> AnyMessage:
        serialize = type(request).SerializeToString
        call: grpc.aio.UnaryUnaryMultiCallable[Message, AnyMessage] = self.channel.unary_unary(
            f"/v1beta1.DevicePlugin/{method}", serialize, response.FromString
        )
        return await call(request, timeout=timeout_seconds)


@dataclass
class FakeKubelet:
    """The kubelet's device manager, as far as a plugin can see it.

    Registration dials back inside the call; starting removes every socket; pods are admitted one after the other;
    the pod under admission is listed without devices.
    """

    directory: Path
    plugins: dict[str, KubeletPlugin] = field(default_factory=dict)
    registrations: list[str] = field(default_factory=list)
    pods: dict[ContainerKey, frozenset[str]] = field(default_factory=dict)
    resources: dict[ContainerKey, str] = field(default_factory=dict)
    """What a pod holds, where it isn't the resource of whole devices."""
    claimed: dict[ContainerKey, podresources_pb2.DynamicResource] = field(default_factory=dict)
    """What a pod holds by a claim."""
    envs: dict[ContainerKey, dict[str, str]] = field(default_factory=dict)
    responses: list[deviceplugin_pb2.ContainerAllocateResponse] = field(default_factory=list)
    """Of all allocations, oldest first."""
    lists_during_allocate: int = 0
    lists: int = 0
    allocating: bool = False
    list_rejections: int = 0
    """How many of the next lists are rejected, as above the kubelet's limit of calls."""
    before_register_answer: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.device_plugins = self.directory / "device-plugins"
        self.device_plugins.mkdir(exist_ok=True)
        self.pod_resources = self.directory / "pod-resources.sock"
        self._registry: grpc.aio.Server | None = None
        self._lister: grpc.aio.Server | None = None
        self._streams: set[asyncio.Task[None]] = set()
        self._told = asyncio.Event()

    async def start(self) -> None:
        for socket in self.device_plugins.glob("*.sock"):
            socket.unlink()
        self._registry = await self._serve(
            self.device_plugins / "kubelet.sock",
            "v1beta1.Registration",
            {"Register": (self._register, deviceplugin_pb2.RegisterRequest)},
        )
        self._lister = await self._serve(
            self.pod_resources,
            "v1.PodResourcesLister",
            {"List": (self._list, podresources_pb2.ListPodResourcesRequest)},
        )

    async def stop(self) -> None:
        for stream in self._streams:
            stream.cancel()
        await asyncio.gather(*self._streams, return_exceptions=True)
        for server in (self._registry, self._lister):
            if server is not None:
                await server.stop(0)
        for plugin in self.plugins.values():
            await plugin.channel.close()
        self.plugins.clear()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def until(self, condition: Callable[[], object], seconds: float = 15) -> None:
        """Waits until a message of a plugin makes the condition true."""
        async with asyncio.timeout(seconds):
            while not condition():
                self._told.clear()
                await self._told.wait()

    def tasks(self) -> set["asyncio.Task[Any]"]:
        """Returns the tasks of this kubelet: its own, and those of grpcio's calls and servers, which no agent uses."""
        names = ("FakeKubelet", "UnaryStreamCall", "UnaryUnaryCall", "cygrpc")
        return {task for task in asyncio.all_tasks() if any(name in repr(task) for name in names)}

    def serving(self, resource: str = RESOURCE) -> bool:
        plugin = self.plugins.get(resource)
        return plugin is not None and not plugin.stopped and plugin.lists > 0

    def healthy(self, resource: str = RESOURCE) -> frozenset[str]:
        """Device IDs of the resource that containers can be given."""
        plugin = self.plugins.get(resource)
        return plugin.healthy if plugin else frozenset()

    async def admit(
        self,
        pod: str,
        size: int,
        *,
        container: str = "main",
        forced: tuple[str, ...] = (),
        resource: str = RESOURCE,
    ) -> frozenset[str]:
        """Admit a pod in namespace `ml`; returns its devices.

        Raises:
            RejectedPodError: The plugin rejected.
        """
        key = ContainerKey("ml", pod, container)
        self.pods[key] = frozenset()
        self.resources[key] = resource
        plugin = self.plugins[resource]
        free = plugin.healthy.difference(*self.pods.values())
        try:
            devices = await self._ask(resource, free, size, forced)
            self.allocating = True
            self.envs[key] = await self.allocate(devices, resource)
        except RejectedPodError:
            del self.pods[key]
            raise
        finally:
            self.allocating = False
        self.pods[key] = devices
        return devices

    def claim(self, key: ContainerKey, claim: tuple[str, str], device: tuple[str, str]) -> None:
        """Lists a container that has a device (pool and name) of the agent's driver by a claim (namespace and name)."""
        (namespace, name), (pool, device_name) = claim, device
        resource = podresources_pb2.ClaimResource(driver_name=DRA_DRIVER, pool_name=pool, device_name=device_name)
        self.pods[key] = frozenset()
        self.claimed[key] = podresources_pb2.DynamicResource(
            claim_namespace=namespace, claim_name=name, claim_resources=[resource]
        )

    async def prefer(
        self, available: frozenset[str], size: int, forced: tuple[str, ...] = (), resource: str = RESOURCE
    ) -> list[str]:
        request = deviceplugin_pb2.PreferredAllocationRequest(
            container_requests=[
                deviceplugin_pb2.ContainerPreferredAllocationRequest(
                    available_deviceIDs=available, must_include_deviceIDs=forced, allocation_size=size
                )
            ]
        )
        answer = await self.plugins[resource].call(
            "GetPreferredAllocation", request, deviceplugin_pb2.PreferredAllocationResponse
        )
        return list(answer.container_responses[0].deviceIDs)

    async def allocate(self, devices: frozenset[str], resource: str = RESOURCE) -> dict[str, str]:
        request = deviceplugin_pb2.AllocateRequest(
            container_requests=[deviceplugin_pb2.ContainerAllocateRequest(devices_ids=devices)]
        )
        try:
            answer = await self.plugins[resource].call("Allocate", request, deviceplugin_pb2.AllocateResponse)
        except grpc.aio.AioRpcError as error:
            raise RejectedPodError(f"{error.code().name}: {error.details()}") from error
        (response,) = answer.container_responses
        self.responses.append(response)
        return dict(response.envs)

    async def _ask(self, resource: str, free: frozenset[str], size: int, forced: tuple[str, ...]) -> frozenset[str]:
        preferred = [uuid for uuid in await self.prefer(free, size, forced, resource) if uuid in free]
        # A short answer is filled up with anything, as the device manager does.
        return frozenset([*preferred, *sorted(free.difference(preferred))][:size])

    async def _register(self, request: deviceplugin_pb2.RegisterRequest, _: object) -> deviceplugin_pb2.Empty:
        channel = unix_channel(self.device_plugins / request.endpoint)
        plugin = KubeletPlugin(channel, deviceplugin_pb2.DevicePluginOptions())
        plugin.options = await plugin.call(
            "GetDevicePluginOptions", deviceplugin_pb2.Empty(), deviceplugin_pb2.DevicePluginOptions
        )
        earlier = self.plugins.get(request.resource_name)
        if earlier is not None:
            await earlier.channel.close()
        self.plugins[request.resource_name] = plugin
        self.registrations.append(request.resource_name)
        self._streams.add(asyncio.create_task(self._watch(plugin)))
        self.before_register_answer()
        self._told.set()
        return deviceplugin_pb2.Empty()

    async def _watch(self, plugin: KubeletPlugin) -> None:
        stream = plugin.channel.unary_stream(
            "/v1beta1.DevicePlugin/ListAndWatch",
            deviceplugin_pb2.Empty.SerializeToString,
            deviceplugin_pb2.ListAndWatchResponse.FromString,
        )
        with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            async for message in stream(deviceplugin_pb2.Empty()):
                plugin.healthy = frozenset(device.ID for device in message.devices if device.health == "Healthy")
                plugin.unhealthy = frozenset(device.ID for device in message.devices) - plugin.healthy
                plugin.topology |= any(device.HasField("topology") for device in message.devices)
                plugin.lists += 1
                self._told.set()
        plugin.stopped = True
        plugin.healthy = frozenset()
        self._told.set()

    async def hang_up(self, resource: str = RESOURCE) -> None:
        """Close the connection to a plugin, as the device manager does when it mixes up an old one and a new one."""
        plugin = self.plugins[resource]
        await plugin.channel.close()
        await self.until(lambda: plugin.stopped)

    async def _list(
        self, _: podresources_pb2.ListPodResourcesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> podresources_pb2.ListPodResourcesResponse:
        if self.list_rejections:
            self.list_rejections -= 1
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "rejected by rate limit")
        self.lists += 1
        self.lists_during_allocate += self.allocating
        return podresources_pb2.ListPodResourcesResponse(
            pod_resources=[
                podresources_pb2.PodResources(
                    name=key.pod,
                    namespace=key.namespace,
                    containers=[
                        podresources_pb2.ContainerResources(
                            name=key.container,
                            devices=[
                                podresources_pb2.ContainerDevices(
                                    resource_name=self.resources.get(key, RESOURCE), device_ids=[uuid]
                                )
                                for uuid in devices
                            ],
                            dynamic_resources=[self.claimed[key]] if key in self.claimed else [],
                        )
                    ],
                )
                for key, devices in self.pods.items()
            ]
        )

    async def _serve(self, socket: Path, service: str, methods: dict[str, tuple[Any, Any]]) -> grpc.aio.Server:
        server = grpc.aio.server()
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            name: grpc.unary_unary_rpc_method_handler(
                call, request.FromString, lambda message: message.SerializeToString()
            )
            for name, (call, request) in methods.items()
        }
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
        server.add_insecure_port(unix_address(socket))
        await server.start()
        return server
