"""A publisher against a fake apiserver, for virtual time."""

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from prometheus_client import CollectorRegistry

from gpufleet_agent.kube.api import KubeError, ObjectNotFoundError
from gpufleet_agent.kube.model import Assignment, LeaseRenewal, TelemetryObject
from gpufleet_agent.kube.telemetry_watch import TelemetryWatch
from gpufleet_agent.publish.lease import make_renewer
from gpufleet_agent.publish.payload import timestamp
from gpufleet_agent.publish.publisher import Publisher
from gpufleet_agent.publish.rate_limit import WritePolicy
from gpufleet_agent.runtime.instruments import Instruments
from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_testing.agent.built_status import BuiltStatus

EPOCH = 1_780_000_000.0


def _now() -> float:
    """Returns the seconds since the start of the loop."""
    return asyncio.get_running_loop().time() - 1000


class TimedApi:
    """Takes writes down with the time they came at."""

    def __init__(self) -> None:
        self.object: TelemetryObject | None = TelemetryObject("uid-a", 1, 1)
        self.away = False
        self.leases_forbidden = False
        self.reads_forbidden = False
        """Of the object, from the end of the watch on."""
        self.watch_ended = asyncio.Event()
        self.takes_seconds = 0.0
        self.reserved_meanwhile = False
        """Whether reservations are written during the next write."""
        self.attempts: list[float] = []
        self.writes: list[tuple[float, int]] = []
        self.renewals: list[tuple[float, LeaseRenewal]] = []
        """Attempts, too."""

    async def get(self) -> TelemetryObject:
        if self.reads_forbidden:
            raise KubeError("forbidden")
        return self._found()

    def _found(self) -> TelemetryObject:
        if self.object is None:
            raise ObjectNotFoundError("gone")
        return self.object

    async def ensure(self) -> TelemetryObject:
        version = self.object.resource_version if self.object else 100
        self.object = self.object or TelemetryObject("uid-b", 1, version)
        return self.object

    async def apply_status(self, status: Mapping[str, Any]) -> TelemetryObject:
        now = _now()
        self.attempts.append(now)
        if self.away:
            raise KubeError("away")
        current = self._found()
        self.writes.append((now, status["devices"][0]["utilizationPercent"]))
        generation = current.generation + int(self.reserved_meanwhile)
        version = current.resource_version + 1
        self.object = replace(current, generation=generation, resource_version=version, status=status)
        self.reserved_meanwhile = False
        await asyncio.sleep(self.takes_seconds)
        return self.object

    async def renew_lease(self, renewal: LeaseRenewal) -> None:
        self.renewals.append((_now(), renewal))
        await asyncio.sleep(self.takes_seconds)
        if self.away or self.leases_forbidden:
            raise KubeError("away" if self.away else "forbidden")

    async def watch(self) -> AsyncGenerator[TelemetryObject | None, None]:
        yield self.object
        await self.watch_ended.wait()
        self.watch_ended.clear()

    async def close(self) -> None:
        pass


class PublisherRig:
    """The publisher of a node with one device.

    Args:
        policy: How often to write; the jitter is 0 in any case.
        pod: Namespace and name of the agent's pod; None: there is no Lease.
    """

    def __init__(self, policy: WritePolicy | None = None, pod: tuple[str, str] | None = None) -> None:
        self.api = TimedApi()
        self.changes = VersionSignal()
        self.own = TelemetryWatch(self.api, self.changes, random.Random(1))  # noqa: S311 - jitter
        self.utilization = 0
        self.healthy = True
        self.device: dict[str, Any] = {}
        """Additional fields of the device."""
        self.events = 0
        """Of devices with a fault."""
        self.registry = CollectorRegistry()
        policy, counters = replace(policy or WritePolicy(), jitter=0.0), Instruments(self.registry, "test")
        self.publisher = Publisher(
            api=self.api,
            telemetry=self.own,
            observe=lambda: BuiltStatus(self.status(), self.events),
            changes=self.changes,
            policy=policy,
            counters=counters,
            rng=random.Random(1),  # noqa: S311 - jitter
            lease=make_renewer(self.api, pod, policy.heartbeat, counters),
        )

    def status(self) -> dict[str, Any]:
        """Returns the status as of now."""
        health = {"state": "Healthy" if self.healthy else "Unhealthy"}
        device = {"uuid": "GPU-0", "utilizationPercent": self.utilization, "health": health}
        return {
            "assignmentsGeneration": self.own.generation,
            "observedAt": timestamp(EPOCH + _now()),
            "devices": [device | self.device],
            "summary": {"state": "Ready", "free": 1},
        }

    def reserve(self, *assignments: Assignment) -> None:
        """Writes reservations as the operator does; the agent has read them."""
        assert self.api.object is not None
        generation, version = self.api.object.generation + 1, self.api.object.resource_version + 1
        self.api.object = replace(
            self.api.object, generation=generation, resource_version=version, assignments=assignments
        )
        self.own.update(self.api.object)

    def counted(self, metric: str, **labels: str) -> float:
        """Returns the value of a counter; 0 without one."""
        return self.registry.get_sample_value(metric, labels) or 0.0


@asynccontextmanager
async def running(rig: PublisherRig | None = None) -> AsyncGenerator[PublisherRig, None]:
    """Runs a publisher whose object exists and is watched."""
    rig = rig or PublisherRig()
    tasks = [asyncio.create_task(rig.own.run())]
    await rig.own.wait_synced()
    tasks.append(asyncio.create_task(rig.publisher.run(lambda: None)))
    try:
        yield rig
    finally:
        for task in tasks:
            assert not task.done()
            task.cancel()
