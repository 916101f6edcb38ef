"""What eight real devices say reaches the cluster as rarely, and looks as old, as it should: record to operator."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from gpufleet_agent.devices.base import DeviceInfo, Reading, SlowReading, ThrottleReason
from gpufleet_agent.kube.model import TelemetryObject
from gpufleet_agent.publish.deadband import significance, stale_after
from gpufleet_agent.publish.payload import Status, build_status
from gpufleet_agent.publish.rate_limit import WriteCause, WritePolicy, due_cause, first_write, next_write
from gpufleet_agent.publish.steady import still_holds
from gpufleet_agent.sampling.health import HealthPolicy
from gpufleet_agent.sampling.node_registry import Instant, NodeRegistry
from gpufleet_api.telemetry.gpu_telemetry import GPUTelemetry
from gpufleet_operator.fleet.engine_input import UNKNOWN_NODE, node_state

HOURS = 3600
START = 1_780_000_000.0
DEVICES = tuple(
    DeviceInfo(f"GPU-{index}", index, "NVIDIA H100 80GB HBM3", memory_total_mib=81_559) for index in range(8)
)


class Node:
    """Eight devices, read by clocks that the test sets."""

    def __init__(self, sample_seconds: int = 1) -> None:
        self.record = NodeRegistry(window_seconds=60, sample_seconds=sample_seconds, policy=HealthPolicy())
        self.record.register(DEVICES, "580.1", Instant(0, START))

    def read(self, uuid: str, second: float, skew: float, load: Callable[[str], float]) -> None:
        now = Instant(second, START + second + skew)
        draw = load(uuid)
        reading = Reading(
            uuid=uuid,
            memory_total_mib=81_559,
            memory_used_mib=412 + draw,
            utilization_percent=min(100, abs(draw)),
            memory_utilization_percent=0,
            temperature_celsius=40 + draw / 2,
            memory_temperature_celsius=50 + draw / 2,
            power_milliwatts=70_000 + 2_000 * draw,
            power_limit_milliwatts=700_000,
            sm_clock_mhz=round(1200 + 300 * math.sin(second)),
            throttle_reasons=frozenset({ThrottleReason.SW_POWER_CAP}) if second % 2 else frozenset(),
        )
        self.record.record_slow(SlowReading(uuid=uuid, process_count=0, ecc_corrected=second), now)
        self.record.record(reading, now)

    def status(self, second: float, skew: float = 0) -> Status:
        now = Instant(second, START + second + skew)
        return build_status(self.record.snapshot(now), {}, generation=1, observed_at=now.wall, agent_version="1")


def writes(seed: int, seconds: int, sample_seconds: int) -> list[float]:
    """When a node at rest writes its status: its devices' readings flicker as idle ones do."""
    rng, policy, node = random.Random(seed), WritePolicy(stale=stale_after(sample_seconds)), Node(sample_seconds)  # noqa: S311 - noise
    times: list[float] = []
    last = written = None
    for second in range(seconds):
        if second % sample_seconds == 0:
            for device in DEVICES:
                node.read(device.uuid, second, 0, lambda _: rng.uniform(-2, 2))
        status = node.status(second)
        if last is None or written is None:
            last, written = first_write(policy, second, rng.random()), status
        else:
            cause = due_cause(policy, last, significance(written, status, policy.stale), second)
            if cause is None:
                continue
            last, written = next_write(policy, last, second, rng.random(), cause=cause), status
        times.append(second)
    return times


@pytest.mark.parametrize("sample_seconds", [1, 10, 20, 60])
def test_at_rest_a_node_writes_twice_a_minute_at_most(sample_seconds: int) -> None:
    """Readings that flicker, clocks that swing, software's throttling and counters of errors are no news."""
    times = writes(seed=1, seconds=600, sample_seconds=sample_seconds)
    assert all(30 <= later - earlier <= 34 for earlier, later in pairwise(times))
    for start in range(541):
        assert sum(start <= time < start + 60 for time in times) <= 2


@pytest.mark.parametrize("sample_seconds", [1, 10, 60])
def test_report_of_a_node_at_rest_holds_until_the_next_one(sample_seconds: int) -> None:
    """Statistics of the window flicker as well, once it is full."""
    rng, node = random.Random(3), Node(sample_seconds)  # noqa: S311 - noise
    telemetry = TelemetryObject("uid-t", 1, 1)
    held = []
    for second in range(1300):
        if second % sample_seconds == 0:
            for device in DEVICES:
                node.read(device.uuid, second, 0, lambda _: rng.uniform(-2, 2))
        if second % 300 == 80:
            telemetry = replace(telemetry, status=node.status(second))
        elif second % 30 == 10 and telemetry.status:
            published = dict(telemetry.status)
            held.append(still_holds(published, node.status(second), telemetry, stale_after(sample_seconds), 30.0))
    assert held == [True] * 40


def test_nodes_that_start_together_drift_apart() -> None:
    """A hundred nodes, installed in one second: ten minutes later their heartbeats are spread over the interval."""
    moments = []
    for seed in range(100):
        rng, policy = random.Random(seed), WritePolicy()  # noqa: S311 - jitter
        last = first_write(policy, 0.0, rng.random())
        for _ in range(20):
            last = next_write(policy, last, last.heartbeat_at, rng.random(), cause=WriteCause.HEARTBEAT)
        moments.append(last.heartbeat_at)
    busiest = max(sum(moment <= other < moment + 1 for other in moments) for moment in moments)
    assert busiest <= 25, f"{busiest} of 100 nodes in one second"


@pytest.mark.parametrize("skew", [-5 * HOURS, 0, 5 * HOURS], ids=["behind", "right", "ahead"])
@pytest.mark.parametrize("step", [-3 * HOURS, 0, 3 * HOURS], ids=["set back", "left alone", "set forth"])
def test_no_clock_makes_old_samples_look_fresh(skew: float, step: float) -> None:
    """GPU-0 gets stuck at second 10; the node's clock is wrong by hours, and is set by hours while it is stuck."""
    node = Node()
    for second in range(200):
        for device in DEVICES[second > 10 :]:
            node.read(device.uuid, second, skew if second < 100 else skew + step, lambda _: 1.0)
    status = node.status(200, skew + step)
    document = {"metadata": {"name": "n"}, "status": status}
    # By the apiserver's clock the status was written two seconds ago.
    state = node_state(GPUTelemetry.model_validate(document), UNKNOWN_NODE, age_seconds=2.0, stale_after_seconds=90.0)
    stuck, *others = state.devices
    assert stuck.sample_age_seconds == pytest.approx(192.0)
    assert stuck.stale_reason, "older than the limit"
    assert [device.sample_age_seconds for device in others] == pytest.approx([3.0] * 7)
    assert not any(device.stale_reason for device in others)
