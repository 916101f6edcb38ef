"""A fake kubelet with the sockets that an idle agent uses."""

import asyncio
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import grpc
import grpc.aio

from gpufleet_agent.proto import deviceplugin_pb2, podresources_pb2
from gpufleet_e2e.fakes.grpc_sockets import unix_address, unix_channel

UPTIME_SECONDS = 3600.0


class Kubelet:
    """Accepts registrations, watches the device list of each plugin, and lists holders.

    Args:
        folder: Folder of the sockets; short enough for a socket's path.
    """

    def __init__(self, folder: Path) -> None:
        self.device_plugins = folder / "device-plugins"
        self.device_plugins.mkdir()
        self.pod_resources = folder / "pod-resources.sock"
        self.held: dict[tuple[str, str, str], Mapping[str, list[str]]] = {}
        """Device IDs by resource, for each namespace, pod and container."""
        self.devices: dict[str, int] = {}
        """Number of devices that each resource's plugin lists."""
        self.lists = 0
        self._servers: list[grpc.aio.Server] = []
        self._streams: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Opens the sockets."""
        await self._serve(
            self.device_plugins / "kubelet.sock",
            "v1beta1.Registration",
            {"Register": (self._register, deviceplugin_pb2.RegisterRequest)},
        )
        await self._serve(
            self.pod_resources,
            "v1.PodResourcesLister",
            {"List": (self._list, podresources_pb2.ListPodResourcesRequest)},
        )
        # It has run for a long time: an agent does not trust the list of a kubelet that has just started.
        earlier = time.time() - UPTIME_SECONDS
        os.utime(self.pod_resources, (earlier, earlier))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes the sockets."""
        for stream in self._streams:
            stream.cancel()
        await asyncio.gather(*self._streams, return_exceptions=True)
        for server in self._servers:
            await server.stop(0)

    async def _register(self, request: deviceplugin_pb2.RegisterRequest, _: object) -> deviceplugin_pb2.Empty:
        self._streams.append(asyncio.create_task(self._watch(request.resource_name, request.endpoint)))
        return deviceplugin_pb2.Empty()

    async def _watch(self, resource: str, endpoint: str) -> None:
        async with unix_channel(self.device_plugins / endpoint) as channel:
            stream = channel.unary_stream(
                "/v1beta1.DevicePlugin/ListAndWatch",
                deviceplugin_pb2.Empty.SerializeToString,
                deviceplugin_pb2.ListAndWatchResponse.FromString,
            )
            with suppress(grpc.aio.AioRpcError):  # the agent ended
                async for message in stream(deviceplugin_pb2.Empty()):
                    self.devices[resource] = len(message.devices)
        self.devices.pop(resource, None)

    async def _list(self, _: object, __: object) -> podresources_pb2.ListPodResourcesResponse:
        self.lists += 1
        return podresources_pb2.ListPodResourcesResponse(
            pod_resources=[
                podresources_pb2.PodResources(
                    namespace=namespace,
                    name=pod,
                    containers=[
                        podresources_pb2.ContainerResources(
                            name=container,
                            devices=[
                                podresources_pb2.ContainerDevices(resource_name=resource, device_ids=ids)
                                for resource, ids in held.items()
                            ],
                        )
                    ],
                )
                for (namespace, pod, container), held in self.held.items()
            ]
        )

    async def _serve(self, socket: Path, service: str, methods: dict[str, tuple[Any, Any]]) -> None:
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
        self._servers.append(server)
