"""Follows up on prepared claims: adds the holders, polls the kubelet's list again, counts."""

from gpufleet_agent.dra.prepared_claim import PreparedClaim
from gpufleet_agent.kube.telemetry_watch import TelemetryWatch
from gpufleet_agent.podresources.holdings import Holdings
from gpufleet_agent.podresources.poller import PodResourcesPoller
from gpufleet_agent.runtime.instruments import Instruments
from gpufleet_api.names import DRA_DRIVER


class ClaimObserver:
    """The observer of a running agent."""

    def __init__(
        self, holdings: Holdings, poller: PodResourcesPoller, telemetry: TelemetryWatch, counters: Instruments
    ) -> None:
        self._holdings = holdings
        self._poller = poller
        self._telemetry = telemetry
        self._counters = counters
        counters.registered.labels(DRA_DRIVER)  # 0 is exported until the kubelet registers the driver

    def prepared(self, claim: PreparedClaim) -> None:
        """Called before the kubelet gets the devices."""
        reserved = [each for each in self._telemetry.assignments or () if each.pod_uid in claim.pod_uids]
        for assignment in reserved:
            self._holdings.add(assignment)
        self._counters.allocations.labels("Managed" if reserved else "Unmanaged", "").inc()
        self._poller.poll_soon()

    def rejected(self) -> None:
        self._counters.allocations.labels("Rejected", "ClaimNotPrepared").inc()

    def unprepared(self) -> None:
        self._poller.poll_soon()

    def registered(self, accepted: bool) -> None:  # noqa: FBT001 - the kubelet's answer
        outcome = "Registered" if accepted else "Failed"
        self._counters.registrations.labels(DRA_DRIVER, outcome).inc()
        self._counters.registered.labels(DRA_DRIVER).set(int(accepted))
