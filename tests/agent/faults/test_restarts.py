"""Random histories of agents on one node, file, object and clock: a restart preserves the current faults."""

from dataclasses import dataclass, field, replace
from typing import Any

import structlog.testing
from hypothesis import example, given
from hypothesis import strategies as st

from gpufleet_agent.devices.base import DeviceEvent, DeviceInfo, Reading, Recovery
from gpufleet_agent.faults.file.format import NodeCheckpoint, decode, encode, to_bytes
from gpufleet_agent.faults.restore import FaultRestorer
from gpufleet_agent.kube.model import TelemetryObject
from gpufleet_agent.publish.payload import build_status
from gpufleet_agent.sampling.health import HealthPolicy
from gpufleet_agent.sampling.node_registry import Instant, NodeRegistry
from gpufleet_agent.sampling.saved_state import Checkpoint
from gpufleet_common import timestamps
from gpufleet_testing.hypothesis_profiles import examples

DEVICES = [DeviceInfo(f"GPU-{index}", index, "Sim", pci_bus_id=f"0000:1{index}:00.0") for index in range(3)]


@dataclass
class Node:
    """What outlives an agent."""

    monotonic: float = 100.0
    clock_ahead: float = 1_780_000_000.0
    disk: bytes | None = None
    status: dict[str, Any] = field(default_factory=dict)
    acknowledged: str = ""
    version: int = 1
    away: bool = False
    listed: set[int] = field(default_factory=lambda: {0, 1, 2})

    def now(self) -> Instant:
        return Instant(self.monotonic, self.monotonic + self.clock_ahead)


class Agent:
    """The parts of an agent that remember, put together as in the real one. `late`: its disk answers last."""

    def __init__(self, node: Node, *, late: bool = False) -> None:
        self.node = node
        self.record = NodeRegistry(window_seconds=60, sample_seconds=1, policy=HealthPolicy())
        self.memory = FaultRestorer(
            "boot-1",
            lambda past: self.record.restore(past, node.now()),
            lambda mark: self.record.acknowledge(mark, node.now()),
            lambda: None,
            lambda: node.now().wall,
        )
        self.current: TelemetryObject | None = None
        self.attempted: float | None = None
        self.file: Checkpoint | None = None
        if late:
            self.look()
            self.observe()
        if node.disk is not None:
            self.file = decode(node.disk).checkpoint
            self.record.restore(self.file.state, node.now())
            self.memory.add_checkpoint(self.file)
        self.look()
        self.observe()

    def look(self) -> None:
        self.record.register([DEVICES[index] for index in sorted(self.node.listed)], "580.1", self.node.now())
        for index in sorted(self.node.listed) * 4:
            self.record.record(Reading(uuid=f"GPU-{index}"), self.node.now())

    def observe(self) -> None:
        node = self.node
        if not node.away and (self.current is None or self.current.resource_version < node.version):
            self.current = TelemetryObject("u", 1, node.version, status=node.status, acknowledged=node.acknowledged)
            self.memory.observe(self.current)

    def keep(self) -> None:
        past = self.record.saved_state(self.node.now())
        assert past is not None
        observed = timestamps.to_epoch(self.current.status.get("observedAt")) if self.current else None
        reports = {self.attempted, observed}
        if self.current is None and self.file is not None:
            reports |= self.file.reports
            past = replace(past, reported_at=max(past.reported_at, self.file.state.reported_at))
        known = Checkpoint(past, self.memory.acknowledgments, frozenset(one for one in reports if one is not None))
        self.node.disk = to_bytes(encode(NodeCheckpoint(known, "node-1", "boot-1")))

    def tell(self) -> None:
        if self.current is None:
            return
        now = self.node.now()
        status = build_status(
            self.record.snapshot(now), {}, generation=1, observed_at=now.wall, agent_version="1", boot_id="boot-1"
        )
        self.attempted = timestamps.to_epoch(status["observedAt"])
        if not self.node.away:
            self.node.status, self.node.version = status, self.node.version + 1
            self.observe()

    def faults(self) -> dict[str, list[str]]:
        devices = self.record.snapshot(self.node.now()).devices
        return {device.info.uuid: [reason.code for reason in device.health.reasons] for device in devices}


def happen(node: Node, agent: Agent, what: str, which: Any) -> None:
    """Applies one change and lets the agent observe it."""
    match what:
        case "xid" if f"GPU-{which}" in agent.faults():
            event = DeviceEvent(f"GPU-{which}", "XidError", 79, "XID", fault=True, recovery=Recovery.RESET)
            agent.record.event(event, node.now())
        case "come or go":
            node.listed ^= {which}
            agent.look()
        case "acknowledge" if node.status:
            node.acknowledged = which and which.format(node.status["observedAt"])
            node.version += 1
        case "clock":
            node.clock_ahead += which
        case "wait":
            node.monotonic += which
            agent.tell()
        case "away":
            node.away = which
    agent.observe()


STEPS = {
    "xid": st.integers(0, 2),
    "come or go": st.integers(0, 2),
    "acknowledge": st.sampled_from(["{}", "GPU-0={}", "GPU-1={}", ""]),
    "clock": st.sampled_from([-36_000.0, 36_000.0, -5.0]),
    "wait": st.sampled_from([0.01, 40.0]),
    "away": st.booleans(),
    "restart": st.booleans(),
}


@examples(40)
@example([("acknowledge", "{}"), ("clock", -36_000.0), ("xid", 0), ("restart", False)])
@example([("acknowledge", "{}"), ("xid", 0), ("clock", -36_000.0), ("restart", False)])
@given(st.lists(st.one_of(*(st.tuples(st.just(what), which) for what, which in STEPS.items())), max_size=20))
def test_restart_with_a_working_disk_changes_nothing(steps: list[tuple[str, Any]]) -> None:
    with structlog.testing.capture_logs():
        node = Node()
        agent = Agent(node)
        for what, which in [("wait", 1.0), *steps]:
            node.monotonic += 0.5
            if what == "restart":
                before = agent.faults()
                agent = Agent(node, late=which)
                assert agent.faults() == before
            happen(node, agent, what, which)
            agent.keep()
            agent.tell()
