"""Builds the response to Allocate: the devices, and the `GPUFLEET_*` variables of the container."""

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
    allocation: ManagedAllocation | UnmanagedAllocation, injector: DeviceInjector
) -> pb.AllocateResponse:
    response = injector.response(allocation.devices)
    if isinstance(allocation, ManagedAllocation):
        response.envs.update(gpufleet_env(allocation))
    return pb.AllocateResponse(container_responses=[response])


def gpufleet_env(allocation: ManagedAllocation) -> dict[str, str]:
    """Returns the `GPUFLEET_*` variables: replica, devices, promised memory and compute, shard."""
    assignment = allocation.assignment
    env = {
        ENV_REPLICA: str(assignment.replica),
        ENV_REPLICAS: str(assignment.replicas),
        ENV_DEVICES: ",".join(allocation.devices),
    }
    if assignment.memory_mib is not None:
        env[ENV_MEMORY_MIB] = str(assignment.memory_mib)
    if assignment.compute_percent is not None:
        env[ENV_COMPUTE_PERCENT] = str(assignment.compute_percent)
    if assignment.shard_start is not None and assignment.shard_end is not None:
        env |= {ENV_SHARD_START: str(assignment.shard_start), ENV_SHARD_END: str(assignment.shard_end)}
    return env
