"""Counters, gauges and histograms that the agent's parts update while they work."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

_LIST_SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Instruments:
    """The agent's own series. Label values are constants of this program, so the number of series is bounded."""

    def __init__(self, registry: CollectorRegistry, version: str) -> None:
        # One `_created` series per counter would double the number of series.
        disable_created_metrics()  # type: ignore[no-untyped-call] # published without types
        build = Gauge(
            "gpufleet_agent_build_info", "Always 1; labeled with the version.", ["version"], registry=registry
        )
        build.labels(version).set(1)
        self.allocations = Counter(
            "gpufleet_agent_allocations",
            "Allocate calls, by outcome (Managed, Unmanaged, Rejected) and reason of rejection.",
            ["outcome", "reason"],
            registry=registry,
        )
        self.reservation_reads = Counter(
            "gpufleet_agent_reservation_reads",
            "Reads of GPUTelemetry during an allocation, by outcome: Fresh (in time), Late (waited for, because no "
            "cached reservation matched), Cached (the cached object was used).",
            ["outcome"],
            registry=registry,
        )
        self.listing_seconds = Histogram(
            "gpufleet_agent_podresources_list_duration_seconds",
            "Duration of PodResources List calls, by caller (Allocation, Poll).",
            ["caller"],
            buckets=_LIST_SECONDS_BUCKETS,
            registry=registry,
        )
        self.listing_failures = Counter(
            "gpufleet_agent_podresources_list_failures",
            "Failed PodResources List calls, by caller (Allocation, Poll).",
            ["caller"],
            registry=registry,
        )
        self.registrations = Counter(
            "gpufleet_agent_registrations",
            "Registrations with the kubelet, by resource and outcome (Registered, Failed).",
            ["resource", "outcome"],
            registry=registry,
        )
        self.registered = Gauge(
            "gpufleet_agent_registered",
            "1 while the kubelet watches the resource's device list, else 0.",
            ["resource"],
            registry=registry,
        )
        self.decode_errors = Counter(
            "gpufleet_agent_decode_errors",
            "Data that could not be decoded, by part: Object (a version of GPUTelemetry, which is skipped), "
            "Status (saved faults in it, which are ignored), Checkpoint (the fault file, which is renamed).",
            ["part"],
            registry=registry,
        )
        for part in ("Object", "Status", "Checkpoint"):
            self.decode_errors.labels(part)  # at 0: increase() does not see a series begin
        self.checkpoint_writes = Counter(
            "gpufleet_agent_checkpoint_writes",
            "Writes of the fault file, by outcome (Written, Failed).",
            ["outcome"],
            registry=registry,
        )
        self.checkpoint_current = Gauge(
            "gpufleet_agent_checkpoint_current",
            "1 while the fault file has every one-time fault, 0 while it cannot be written.",
            ["path"],
            registry=registry,
        )
        self.status_writes = Counter(
            "gpufleet_agent_status_writes",
            "Writes of the GPUTelemetry status, by cause (Change, Urgent, Heartbeat) and outcome (Written, Failed).",
            ["cause", "outcome"],
            registry=registry,
        )
        self.lease_renewals = Counter(
            "gpufleet_agent_lease_renewals",
            "Renewals of the agent's Lease, each instead of a write of an unchanged status, by outcome (Renewed, "
            "Failed: the status was written instead).",
            ["outcome"],
            registry=registry,
        )
