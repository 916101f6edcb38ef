"""Collects the state of the agent for the status."""

import time
from dataclasses import replace
from typing import TypeAlias

from gpufleet_agent.kube.telemetry_watch import TelemetryWatch
from gpufleet_agent.overuse.monitor import OveruseMonitor
from gpufleet_agent.plugin.transport import DeviceTransport
from gpufleet_agent.podresources.holdings import Holdings
from gpufleet_agent.podresources.terminating_pods import TerminatingPods
from gpufleet_agent.publish.observation import Observation
from gpufleet_agent.publish.publisher import Publisher
from gpufleet_agent.sampling.snapshot import SnapshotSource
from gpufleet_api.names import Transport

StatusPublisher: TypeAlias = Publisher[Observation]


class StatusSource:
    """Observes the input of the status of GPUTelemetry.

    Args:
        sampler: Devices and health.
        telemetry: Reservations as last read.
        holdings: Containers that hold devices.
        terminating_pods: Containers that run although the kubelet dropped them.
        overuse: Containers that use more memory than they reserved.
        plugins: Devices that are withheld.
        agent_version: Version of this program.
        boot_id: Boot ID of the node.
        transport: How devices get into containers.
        with_partitions: False if partitions have resources of their own, which the operator does not assign.
    """

    def __init__(
        self,
        *,
        sampler: SnapshotSource,
        telemetry: TelemetryWatch,
        holdings: Holdings,
        terminating_pods: TerminatingPods,
        overuse: OveruseMonitor,
        plugins: DeviceTransport,
        agent_version: str,
        boot_id: str | None,
        transport: Transport,
        with_partitions: bool,
    ) -> None:
        self._sampler = sampler
        self._telemetry = telemetry
        self._holdings = holdings
        self._terminating_pods = terminating_pods
        self._overuse = overuse
        self._plugins = plugins
        self._agent_version = agent_version
        self._boot_id = boot_id
        self._transport = transport
        self._with_partitions = with_partitions

    def observe(self) -> Observation | None:
        """Returns the current observation, without I/O; None until the kubelet's list was read.

        Without that list no device has a holder, and the operator would treat all of them as free. Until then the
        status of an earlier process stays, and becomes stale.
        """
        if self._holdings.listed_at is None:
            return None
        snapshot = self._sampler.snapshot()
        if not self._with_partitions:
            # The operator may reserve every device in the status, and reserves only gpufleet's own resources.
            whole = tuple(device for device in snapshot.devices if device.info.parent is None)
            snapshot = replace(snapshot, devices=whole)
        now = time.time()
        return Observation(
            snapshot=snapshot,
            holders=self._holdings.holders(self._telemetry.assignments or ()),
            generation=self._telemetry.generation,
            observed_at=now,
            agent_version=self._agent_version,
            boot_id=self._boot_id,
            transport=self._transport,
            processes_observed=self._terminating_pods.observed,
            overuse=self._overuse.active,
            usages=self._overuse.containers,
            memory=self._overuse.memory,
            withheld=self._plugins.withheld(),
            cordoned=self._telemetry.cordoned(now),
        )
