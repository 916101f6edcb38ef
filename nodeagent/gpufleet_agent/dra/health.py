"""The health of devices as the kubelet shows it in the status of pods. Pure."""

from gpufleet_agent.proto import dra_health_pb2 as pb
from gpufleet_agent.sampling.snapshot import DeviceSnapshot, HealthState, NodeSnapshot
from gpufleet_common.device_ids import device_name

TIMEOUT_SECONDS = 60
"""Age after which the kubelet takes the health of a device for unknown."""

MAX_MESSAGE = 1024


def health_response(snapshot: NodeSnapshot, pool: str, now: float) -> pb.NodeWatchResourcesResponse:
    """Builds the list of all devices. `now` is in seconds since the epoch."""
    return pb.NodeWatchResourcesResponse(
        devices=[
            pb.DeviceHealth(
                device=pb.DeviceIdentifier(pool_name=pool, device_name=device_name(device.info.uuid)),
                health=pb.HEALTHY if device.health.state is HealthState.HEALTHY else pb.UNHEALTHY,
                last_updated_time=int(now),
                health_check_timeout_seconds=TIMEOUT_SECONDS,
                message=_message(device),
            )
            for device in snapshot.devices
        ]
    )


def _message(device: DeviceSnapshot) -> str:
    return "; ".join(f"{reason.code}: {reason.message}" for reason in device.health.reasons)[:MAX_MESSAGE]
