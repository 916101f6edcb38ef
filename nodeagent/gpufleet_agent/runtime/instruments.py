"""What the agent counts about itself."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

LISTING_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Instruments:
    """The agent's own series; every label value is a constant of ours, so their number is bounded."""

    def __init__(self, registry: CollectorRegistry, version: str) -> None:
        # One `_created` series per counter would double what is stored, and nobody asks for them.
        disable_created_metrics()  # type: ignore[no-untyped-call] # published without types
        build = Gauge(
            "gpufleet_agent_build_info", "Always 1; the version is the label.", ["version"], registry=registry
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
            "Reads of the node's own object during an allocation: Fresh (in time), Late (waited for, as memory named "
            "no pod that asks), Memory (answered from memory).",
            ["outcome"],
            registry=registry,
        )
        self.listing_seconds = Histogram(
            "gpufleet_agent_listing_seconds",
            "Duration of PodResources List calls in seconds, by caller (Allocation, Poll).",
            ["caller"],
            buckets=LISTING_BUCKETS,
            registry=registry,
        )
        self.listing_failures = Counter(
            "gpufleet_agent_listing_failures",
            "PodResources List calls that failed, by caller (Allocation, Poll).",
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
            "1 while the kubelet is listening to the resource's device list, else 0.",
            ["resource"],
            registry=registry,
        )
        self.unreadable = Counter(
            "gpufleet_agent_unreadable",
            "What was read and makes no sense, by part (Object: a version of it, which is left out; "
            "Past: what an earlier process reported, or a part of that, which is taken for unknown; "
            "Checkpoint: the file with faults on the node, which is set aside).",
            ["part"],
            registry=registry,
        )
        self.checkpoint_writes = Counter(
            "gpufleet_agent_checkpoint_writes",
            "Writes of the file in which faults outlive the agent, by outcome (Written, Failed).",
            ["outcome"],
            registry=registry,
        )
        self.checkpoint_current = Gauge(
            "gpufleet_agent_checkpoint_current",
            "1 while the file on the node has every fault that is told once, 0 while it can't be written.",
            ["path"],
            registry=registry,
        )
        self.status_writes = Counter(
            "gpufleet_agent_status_writes",
            "Writes of the GPUTelemetry status, by cause (Change, Urgent, Heartbeat) and outcome (Written, Failed).",
            ["cause", "outcome"],
            registry=registry,
        )
