"""Builds the DRA driver from the parts of the agent."""

import random
from collections.abc import Callable, Mapping

from gpufleet_agent.dra.claim_registry import ClaimRegistry
from gpufleet_agent.dra.driver import DraDriver, DriverContext
from gpufleet_agent.dra.observer import ClaimObserver
from gpufleet_agent.dra.prepared_claim import PreparedClaim
from gpufleet_agent.dra.server import DriverSockets
from gpufleet_agent.kube.api import DraApi
from gpufleet_agent.kube.telemetry_watch import TelemetryWatch
from gpufleet_agent.plugin.inject.strategies import InjectorSettings
from gpufleet_agent.plugin.types import AdvertisedDevice
from gpufleet_agent.podresources.claimed_devices import ClaimedDevices, OwnClaim
from gpufleet_agent.podresources.holdings import Holdings
from gpufleet_agent.podresources.poller import PodResourcesPoller
from gpufleet_agent.processes.pods_with_process import pods_with_process, sees_node_processes
from gpufleet_agent.runtime.instruments import Instruments
from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_agent.sampling.snapshot import SnapshotSource


def build_driver(
    *,
    node: str,
    sockets: DriverSockets,
    injection: InjectorSettings,
    api: DraApi,
    sampler: SnapshotSource,
    advertised: Callable[[], tuple[AdvertisedDevice, ...]],
    telemetry: TelemetryWatch,
    holdings: Holdings,
    claims: ClaimedDevices,
    poller: PodResourcesPoller,
    counters: Instruments,
    devices_changed: VersionSignal,
    rng: random.Random,
) -> DraDriver:
    """Builds the driver, and lets `claims` use what it prepares."""
    registry = ClaimRegistry()
    claims.use(lambda: own_claims(registry.prepared))
    return DraDriver(
        DriverContext(
            node=node,
            sockets=sockets,
            injection=injection,
            api=api,
            sampler=sampler,
            advertised=advertised,
            telemetry=telemetry,
            holdings=holdings,
            registry=registry,
            observer=ClaimObserver(holdings, poller, telemetry, counters),
            devices_changed=devices_changed,
            living=pods_with_process if sees_node_processes() else None,
            rng=rng,
        )
    )


def own_claims(prepared: tuple[PreparedClaim, ...]) -> Mapping[tuple[str, str], OwnClaim]:
    """Returns what claims have, by namespace and name."""
    return {
        (claim.namespace, claim.name): OwnClaim(
            pod_uids={pod.name: pod.uid for pod in claim.pods},
            devices={device.name: device.uuid for device in claim.devices},
            shared=frozenset(device.uuid for device in claim.devices if device.memory_mib is not None),
            requests=_requests(claim),
        )
        for claim in prepared
    }


def _requests(claim: PreparedClaim) -> Mapping[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for device in claim.devices:
        found[device.name] = found.get(device.name, frozenset()) | {device.request}
    return found
