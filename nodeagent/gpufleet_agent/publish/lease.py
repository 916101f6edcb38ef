"""Renews the Lease of the agent."""

import math

import structlog

from gpufleet_agent.kube.api import KubeError, LeaseApi
from gpufleet_agent.kube.model import LeaseRenewal
from gpufleet_agent.runtime.instruments import Instruments

log = structlog.get_logger(__name__)

_MISSED_HEARTBEATS = 3
"""The Lease expires after this many missed heartbeats."""


class LeaseRenewer:
    """Confirms reports by the Lease.

    Args:
        api: The Lease in the cluster.
        pod: Namespace and name of the agent's pod.
        heartbeat_seconds: Interval of renewals.
        counters: Counts renewals.
    """

    def __init__(self, api: LeaseApi, pod: tuple[str, str], heartbeat_seconds: float, counters: Instruments) -> None:
        self._api = api
        self._namespace, self._holder = pod
        self._duration_seconds = math.ceil(_MISSED_HEARTBEATS * heartbeat_seconds)
        self._counters = counters

    async def renew(self, telemetry_uid: str, observed_at: str) -> bool:
        """Confirms a report; returns whether that succeeded.

        Args:
            telemetry_uid: UID of the object with the report.
            observed_at: `observedAt` of the report.
        """
        renewal = LeaseRenewal(
            namespace=self._namespace,
            holder=self._holder,
            duration_seconds=self._duration_seconds,
            observed_at=observed_at,
            telemetry_uid=telemetry_uid,
        )
        try:
            await self._api.renew_lease(renewal)
        except KubeError as error:
            self._counters.lease_renewals.labels("Failed").inc()
            log.warning("lease not renewed, reporting instead", error=str(error))
            return False
        self._counters.lease_renewals.labels("Renewed").inc()
        return True


def make_renewer(
    api: LeaseApi, pod: tuple[str, str] | None, heartbeat_seconds: float, counters: Instruments
) -> LeaseRenewer | None:
    """Builds the renewer of an agent; None outside of a pod, whose namespace has the Lease."""
    return None if pod is None else LeaseRenewer(api, pod, heartbeat_seconds, counters)
