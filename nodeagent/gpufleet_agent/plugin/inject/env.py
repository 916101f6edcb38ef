"""What Allocate answers beside the devices: how the container learns of its share."""

from gpufleet_agent.plugin.inject.strategies import DeviceInjector
from gpufleet_agent.plugin.types import ManagedAllocation, UnmanagedAllocation
from gpufleet_agent.proto import deviceplugin_pb2 as pb
from gpufleet_api.names import (
    ENV_COMPUTE_PERCENT,
    ENV_DEVICES,
    ENV_MEMORY_MIB,
    ENV_REPLICA,
    ENV_REPLICAS,
    ENV_SHARD_END,
    ENV_SHARD_START,
)


def allocate_response(
    granted: ManagedAllocation | UnmanagedAllocation, injection: DeviceInjector
) -> pb.AllocateResponse:
    """The answer for one container."""
    response = injection.response(granted.devices)
    if isinstance(granted, ManagedAllocation):
        response.envs.update(gpufleet_env(granted))
    return pb.AllocateResponse(container_responses=[response])


def gpufleet_env(granted: ManagedAllocation) -> dict[str, str]:
    """The `GPUFLEET_*` variables: which replica this is, of how many, its devices, what is promised, its items."""
    assignment = granted.assignment
    share = {
        ENV_REPLICA: str(assignment.replica),
        ENV_REPLICAS: str(assignment.replicas),
        ENV_DEVICES: ",".join(granted.devices),
    }
    if assignment.memory_mib is not None:
        share[ENV_MEMORY_MIB] = str(assignment.memory_mib)
    if assignment.compute_percent is not None:
        share[ENV_COMPUTE_PERCENT] = str(assignment.compute_percent)
    if assignment.shard_start is not None and assignment.shard_end is not None:
        share |= {ENV_SHARD_START: str(assignment.shard_start), ENV_SHARD_END: str(assignment.shard_end)}
    return share
