"""A DRA driver that poses as NVIDIA's. It prepares claims of its devices and checks nothing.

Runs in a pod, from the agent's image: `python3 -c SOURCE '{"gpu-0": UUID, ...}'`, see `nvidia_driver`.
"""

import asyncio
import json
import os
import ssl
import sys
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from gpufleet_agent.proto import dra_health_pb2 as health_pb
from gpufleet_agent.proto import dra_pb2 as pb
from gpufleet_agent.proto import plugin_registration_pb2 as registration_pb
from gpufleet_agent.proto.dra import PLUGIN_TYPE, driver_services, registration_service
from gpufleet_agent.proto.socket_server import SocketServer

DRIVER = "gpu.nvidia.com"
PLUGINS, REGISTRY, CDI = (
    Path("/var/lib/kubelet/plugins"),
    Path("/var/lib/kubelet/plugins_registry"),
    Path("/var/run/cdi"),
)
KIND = f"k8s.{DRIVER}/claim"
VARIABLE = "NVIDIA_DRA_DEVICE"
"""Prefix of a variable for each device; it has the UUID."""
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class PosingDriver:
    """Gives the devices of a claim to its containers, as variables.

    Args:
        uuids: By name of the device.
    """

    def __init__(self, uuids: Mapping[str, str]) -> None:
        self._uuids = uuids

    async def get_info(self, request: registration_pb.InfoRequest) -> registration_pb.PluginInfo:
        del request
        endpoint = str(PLUGINS / DRIVER / "dra.sock")
        return registration_pb.PluginInfo(
            type=PLUGIN_TYPE, name=DRIVER, endpoint=endpoint, supported_versions=["v1.DRAPlugin"]
        )

    async def notify_registration_status(
        self, request: registration_pb.RegistrationStatus
    ) -> registration_pb.RegistrationStatusResponse:
        print("registered:", request.plugin_registered, request.error, flush=True)
        return registration_pb.RegistrationStatusResponse()

    async def node_prepare_resources(self, request: pb.NodePrepareResourcesRequest) -> pb.NodePrepareResourcesResponse:
        response = pb.NodePrepareResourcesResponse()
        for claim in request.claims:
            results = await asyncio.to_thread(_allocated, claim.namespace, claim.name)
            devices = []
            for result in results:
                name, uuid = str(result["device"]), self._uuids[str(result["device"])]
                edits = {"env": [f"{VARIABLE}_{name.partition('-')[2]}={uuid}"]}
                devices.append({"name": f"{claim.uid}-{name}", "containerEdits": edits})
            spec = {"cdiVersion": "0.5.0", "kind": KIND, "devices": devices}
            path = _file(claim.uid)
            path.with_suffix(".tmp").write_text(json.dumps(spec), encoding="utf-8")
            path.with_suffix(".tmp").rename(path)
            response.claims[claim.uid].devices.extend(
                pb.Device(
                    request_names=[result["request"]],
                    pool_name=result["pool"],
                    device_name=result["device"],
                    cdi_device_ids=[f"{KIND}={claim.uid}-{result['device']}"],
                )
                for result in results
            )
        return response

    async def node_unprepare_resources(
        self, request: pb.NodeUnprepareResourcesRequest
    ) -> pb.NodeUnprepareResourcesResponse:
        response = pb.NodeUnprepareResourcesResponse()
        for claim in request.claims:
            _file(claim.uid).unlink(missing_ok=True)
            response.claims[claim.uid].error = ""
        return response

    async def node_watch_resources(
        self, request: health_pb.NodeWatchResourcesRequest
    ) -> AsyncGenerator[health_pb.NodeWatchResourcesResponse, None]:
        """Is not called: the driver does not offer the service."""
        del request
        yield health_pb.NodeWatchResourcesResponse()


def _file(uid: str) -> Path:
    return CDI / f"k8s.{DRIVER}-claim_{uid}.json"


def _allocated(namespace: str, name: str) -> list[dict[str, Any]]:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    url = f"https://{host}:{port}/apis/resource.k8s.io/v1/namespaces/{namespace}/resourceclaims/{name}"
    token = (_ACCOUNT / "token").read_text(encoding="utf-8")
    request = Request(url, headers={"Authorization": f"Bearer {token}"})
    trusted = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
    with urlopen(request, context=trusted, timeout=10) as response:  # noqa: S310 - https, see above
        results = json.load(response)["status"]["allocation"]["devices"]["results"]
    return [result for result in results if result["driver"] == DRIVER]


async def serve(uuids: Mapping[str, str]) -> None:
    """Serves until the process is killed."""
    driver = PosingDriver(uuids)
    served = [
        (PLUGINS / DRIVER / "dra.sock", driver_services(driver)),
        (REGISTRY / f"{DRIVER}-reg.sock", (registration_service(driver),)),
    ]
    for path, services in served:
        path.parent.mkdir(parents=True, exist_ok=True)
        await SocketServer(path, services).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.argv[1])))
