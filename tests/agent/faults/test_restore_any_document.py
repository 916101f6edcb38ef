"""Any content of the GPUTelemetry object, by another API version or by hand: the agent keeps running."""

import asyncio
import copy
import json
import random
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from gpufleet_agent.devices.base import DeviceInfo
from gpufleet_agent.faults.restore import FaultRestorer
from gpufleet_agent.kube.model import ObjectFormatError, TelemetryObject, parse_object
from gpufleet_agent.kube.telemetry_watch import TelemetryWatch
from gpufleet_agent.publish.payload import build_status
from gpufleet_agent.publish.publisher import Publisher
from gpufleet_agent.publish.rate_limit import WritePolicy
from gpufleet_agent.runtime.instruments import Instruments
from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_agent.sampling.health import HealthPolicy
from gpufleet_agent.sampling.node_registry import Instant, NodeRegistry
from gpufleet_agent.sampling.saved_state import FaultAcknowledgment, SavedState
from gpufleet_testing.agent.built_status import BuiltStatus
from gpufleet_testing.agent.virtual_time import in_virtual_time
from gpufleet_testing.hypothesis_profiles import examples

InVirtualTime = Callable[[Coroutine[Any, Any, None]], None]

NOW = Instant(monotonic=100.0, wall=1_780_000_000.0)
GOOD: dict[str, Any] = {
    "metadata": {"uid": "u", "generation": 3, "resourceVersion": "7", "annotations": {"a": "b"}},
    "spec": {
        "assignments": [
            {
                "podUID": "p",
                "namespace": "ml",
                "pod": "train-0",
                "container": "main",
                "resource": "gpufleet.dev/gpu",
                "devices": ["GPU-0"],
                "workload": "train",
                "replica": 0,
                "replicas": 1,
                "memoryMiB": 5,
                "decidedAt": "2026-01-01T00:00:00.000000Z",
            }
        ]
    },
    "status": {
        "observedAt": "2026-05-28T20:26:39Z",
        "driverVersion": "580.1",
        "devices": [
            {
                "uuid": "GPU-0",
                "index": 0,
                "model": "H100",
                "numaNode": 1,
                "nvlinkPeers": ["GPU-1"],
                "memoryTotalMiB": 80_000,
                "health": {
                    "state": "Unhealthy",
                    "since": "2026-05-28T20:00:00Z",
                    "reasons": [{"code": "XidError", "since": "2026-05-28T20:00:00Z", "recovery": "Reset"}],
                    "warnings": [{"code": "RowRemapPending", "message": "later", "recovery": "Reset"}],
                },
            }
        ],
    },
}

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("2026-05-28T20:26:39Z"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to everything inside a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in items for place in ((*path, key), *places(inner, (*path, key)))]


@st.composite
def bent(draw: st.DrawFn) -> dict[str, Any]:
    """A good document with something else in up to three places."""
    document = copy.deepcopy(GOOD)
    for place in draw(st.lists(st.sampled_from(places(GOOD)), min_size=1, max_size=3)):
        # A place inside something that was replaced is gone.
        with suppress(KeyError, IndexError, TypeError):
            target: Any = document
            for key in place[:-1]:
                target = target[key]
            target[place[-1]] = draw(anything)
    return document


def remember(version: TelemetryObject) -> tuple[NodeRegistry, list[None]]:
    """What an agent that starts makes of an object."""
    record = NodeRegistry(window_seconds=60, sample_seconds=1, policy=HealthPolicy())
    complaints: list[None] = []

    def restore(past: SavedState) -> None:
        record.restore(past, NOW)

    def acknowledge(acknowledgment: FaultAcknowledgment) -> None:
        record.acknowledge(acknowledgment, NOW)

    FaultRestorer(None, restore, acknowledge, lambda: complaints.append(None)).observe(version)
    record.register([DeviceInfo("GPU-0", 0, "H100")], "580.1", NOW)
    return record, complaints


def report(record: NodeRegistry) -> Mapping[str, Any]:
    return build_status(record.snapshot(NOW), {}, generation=1, observed_at=NOW.wall, agent_version="1", boot_id=None)


def reported_codes(status: Mapping[str, Any]) -> list[str]:
    return [reason["code"] for device in status["devices"] for reason in device["health"].get("reasons", ())]


def test_the_good_document_is_remembered_without_complaint() -> None:
    record, complaints = remember(parse_object(GOOD))
    assert reported_codes(report(record)) == ["XidError"]
    assert complaints == []


@examples(60)
@given(bent() | st.fixed_dictionaries({"metadata": st.just(GOOD["metadata"]), "spec": anything, "status": anything}))
def test_any_document_is_decoded_or_rejected_and_never_reported_as_is(document: Mapping[str, Any]) -> None:
    try:
        version = parse_object(document)
    except ObjectFormatError:
        return
    status = report(remember(version)[0])
    json.dumps(status, allow_nan=False)
    for device in status["devices"]:
        assert isinstance(device["uuid"], str)
        assert isinstance(device["model"], str)
        for field, kind in (("numaNode", int), ("memoryTotalMiB", int), ("nvlinkPeers", list)):
            assert isinstance(device.get(field), kind | None)


@pytest.mark.parametrize(
    "status",
    [
        "bad",
        ["bad"],
        {**GOOD["status"], "devices": 7},
        {**GOOD["status"], "devices": {"GPU-0": {}}},
        {**GOOD["status"], "driverVersion": {"major": 580}},
        {**GOOD["status"], "devices": [7]},
        {**GOOD["status"], "devices": [{**GOOD["status"]["devices"][0], "health": "bad"}]},
        {
            **GOOD["status"],
            "devices": [{**GOOD["status"]["devices"][0], "health": {"state": "Healthy", "reasons": ["x"]}}],
        },
        {**GOOD["status"], "devices": [{**GOOD["status"]["devices"][0], "index": float("inf")}]},
        {**GOOD["status"], "devices": [{**GOOD["status"]["devices"][0], "numaNode": {}}]},
    ],
)
def test_a_past_of_another_form_is_none(status: object) -> None:
    record, complaints = remember(parse_object({**GOOD, "status": status}))
    assert reported_codes(report(record)) == []
    assert len(complaints) == (isinstance(status, dict))


class FakeApi:
    """Answers with documents, the newest last."""

    def __init__(self) -> None:
        self.document: Mapping[str, Any] = GOOD
        self.writes = 0

    async def get(self) -> TelemetryObject:
        return parse_object(self.document)

    async def ensure(self) -> TelemetryObject:
        return parse_object(self.document)

    async def apply_status(self, status: Mapping[str, Any]) -> TelemetryObject:
        self.writes += 1
        return parse_object(self.document)

    async def watch(self) -> AsyncGenerator[TelemetryObject | None, None]:
        yield parse_object(self.document)
        await asyncio.sleep(5)

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("spec", ["bad", {"assignments": "bad"}, {"assignments": ["bad"]}, {"assignments": [{}]}])
@in_virtual_time
async def test_unreadable_object_is_counted_and_ends_neither_watch_nor_writer(
    spec: object,
) -> None:
    registry = CollectorRegistry()
    counters = Instruments(registry, "test")
    api, changes, rng = FakeApi(), VersionSignal(), random.Random(1)  # noqa: S311 - jitter
    own = TelemetryWatch(api, changes, rng, unreadable=counters.decode_errors.labels("Object").inc)
    publisher = Publisher(
        api=api,
        telemetry=own,
        observe=lambda: BuiltStatus({"assignmentsGeneration": 1, "devices": []}),
        changes=changes,
        policy=WritePolicy(),
        counters=counters,
        rng=rng,
    )
    loops = [asyncio.create_task(loop) for loop in (own.run(), publisher.run(lambda: None))]
    await asyncio.sleep(2)
    known = own.current
    assert publisher.published
    api.document = {**GOOD, "spec": spec}
    writes = api.writes
    await asyncio.sleep(300)
    assert not any(loop.done() for loop in loops)
    assert own.current is known
    assert api.writes > writes + 5
    count = registry.get_sample_value("gpufleet_agent_decode_errors_total", {"part": "Object"})
    assert count is not None
    assert count > 10
    api.document = {**GOOD, "metadata": {**GOOD["metadata"], "resourceVersion": "9"}}
    await asyncio.sleep(60)
    assert own.current is not known
    for loop in loops:
        loop.cancel()
