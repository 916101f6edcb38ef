"""Fakes of the apiserver's GPUTelemetry object, one for each kind of test."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from gpufleet_agent.kube.api import KubeError
from gpufleet_agent.kube.model import Assignment, LeaseRenewal, PodEvent, TelemetryObject, parse_object
from gpufleet_agent.kube.resource_slices import ClaimableDevice, PublishedSlice
from gpufleet_api.names import ACKNOWLEDGED_FAULTS_ANNOTATION


class WithoutClaims:
    """The part of the apiserver that only a DRA driver uses, where there is none."""

    async def get_claim(self, namespace: str, name: str) -> Mapping[str, Any]:
        raise KubeError("no claims here")

    async def apply_slice(self, name: str, spec: Mapping[str, Any]) -> PublishedSlice:
        raise KubeError("no slices here")

    async def watch_slice(self, name: str) -> AsyncGenerator[PublishedSlice | None, None]:
        yield None


class JsonObjectApi(WithoutClaims):
    """One GPUTelemetry object, kept as JSON, that outlives the agents."""

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {"uid": "u", "generation": 1, "resourceVersion": "1"}
        self.status: Mapping[str, Any] = {}
        self.away = False
        """Every call fails."""
        self.renewals: list[LeaseRenewal] = []
        self._news = asyncio.Condition()

    async def acknowledge(self, value: str) -> None:
        self.metadata["annotations"] = {ACKNOWLEDGED_FAULTS_ANNOTATION: value}
        await self._written()

    async def get(self) -> TelemetryObject:
        self._answer()
        return parse_object({"metadata": self.metadata, "status": self.status})

    async def ensure(self) -> TelemetryObject:
        return await self.get()

    async def apply_status(self, status: Mapping[str, Any]) -> TelemetryObject:
        self._answer()
        self.status = status
        await self._written()
        return await self.get()

    async def watch(self) -> AsyncGenerator[TelemetryObject | None, None]:
        seen = ""
        while True:
            async with self._news:
                await self._news.wait_for(lambda: self.metadata["resourceVersion"] != seen)  # noqa: B023 - read at once
            seen = self.metadata["resourceVersion"]
            yield await self.get()

    async def renew_lease(self, renewal: LeaseRenewal) -> None:
        self._answer()
        async with self._news:
            self.renewals.append(renewal)
            self._news.notify_all()

    async def claimable_devices(self) -> dict[ClaimableDevice, frozenset[str]]:
        return {}

    async def create_event(self, event: PodEvent) -> None:
        pass

    async def close(self) -> None:
        pass

    async def until(self, condition: Callable[[dict[str, list[str]]], object]) -> None:
        """Wait for a status whose faults, as codes by UUID, fulfil the condition."""
        async with asyncio.timeout(20), self._news:
            await self._news.wait_for(lambda: bool(self.status and condition(self.faults())))

    async def until_renewed(self, count: int) -> None:
        """Wait for renewals of the Lease."""
        async with asyncio.timeout(20), self._news:
            await self._news.wait_for(lambda: len(self.renewals) >= count)

    def faults(self) -> dict[str, list[str]]:
        return {
            device["uuid"]: [reason["code"] for reason in device["health"].get("reasons", ())]
            for device in self.status["devices"]
        }

    def _answer(self) -> None:
        if self.away:
            raise KubeError("away")

    async def _written(self) -> None:
        async with self._news:
            self.metadata["resourceVersion"] = str(int(self.metadata["resourceVersion"]) + 1)
            self._news.notify_all()


class WatchedObjectApi(WithoutClaims):
    """The object in the cluster with a live watch."""

    def __init__(self) -> None:
        self.reads = 0
        self.object = TelemetryObject("uid-node", 1, 1)
        self.statuses: list[Mapping[str, Any]] = []
        self.renewals: list[LeaseRenewal] = []
        self.events: list[PodEvent] = []
        self.closed = False
        self.ensured = asyncio.Event()
        self.ensure_seconds = 0.0
        self._news = asyncio.Condition()

    async def reserve(self, *assignments: Assignment) -> None:
        await self._write(self.object.generation + 1, assignments)

    async def get(self) -> TelemetryObject:
        self.reads += 1
        return self.object

    async def ensure(self) -> TelemetryObject:
        await asyncio.sleep(self.ensure_seconds)
        self.ensured.set()
        return self.object

    async def apply_status(self, status: Mapping[str, Any]) -> TelemetryObject:
        self.statuses.append(status)
        await self._write(self.object.generation, self.object.assignments)
        return self.object

    async def watch(self) -> AsyncGenerator[TelemetryObject | None, None]:
        seen = 0
        while True:
            async with self._news:
                await self._news.wait_for(lambda: self.object.resource_version > seen)  # noqa: B023 - read at once
            seen = self.object.resource_version
            yield self.object

    async def renew_lease(self, renewal: LeaseRenewal) -> None:
        async with self._news:
            self.renewals.append(renewal)
            self._news.notify_all()

    async def claimable_devices(self) -> dict[ClaimableDevice, frozenset[str]]:
        return {}

    async def create_event(self, event: PodEvent) -> None:
        async with self._news:
            self.events.append(event)
            self._news.notify_all()

    async def close(self) -> None:
        self.closed = True

    async def until(self, condition: Callable[[Mapping[str, Any]], object], seconds: float = 10) -> Mapping[str, Any]:
        """Wait for a status that fulfils the condition."""
        async with asyncio.timeout(seconds), self._news:
            await self._news.wait_for(lambda: bool(self.statuses and condition(self.statuses[-1])))
        return self.statuses[-1]

    async def until_told(self, count: int) -> list[PodEvent]:
        """Wait for events."""
        async with asyncio.timeout(10), self._news:
            await self._news.wait_for(lambda: len(self.events) >= count)
        return self.events

    async def _write(self, generation: int, assignments: tuple[Assignment, ...]) -> None:
        async with self._news:
            version = self.object.resource_version + 1
            self.object = TelemetryObject(self.object.uid, generation, version, assignments)
            self._news.notify_all()


class FailingObjectApi:
    """The object in the cluster; reads can be made to fail or to take their time."""

    def __init__(self) -> None:
        self.object = TelemetryObject("uid-node", 1, 1)
        self.away = False
        self.delay_seconds = 0.0
        self.reads = 0

    def reserve(self, *assignments: Assignment) -> None:
        current = self.object
        self.object = TelemetryObject(current.uid, current.generation + 1, current.resource_version + 1, assignments)

    async def get(self) -> TelemetryObject:
        self.reads += 1
        await asyncio.sleep(self.delay_seconds)
        if self.away:
            raise KubeError("away")
        return self.object

    async def ensure(self) -> TelemetryObject:
        return await self.get()

    async def apply_status(self, status: Mapping[str, Any]) -> TelemetryObject:
        raise NotImplementedError

    async def watch(self) -> AsyncGenerator[TelemetryObject | None, None]:
        yield self.object

    async def close(self) -> None:
        pass
