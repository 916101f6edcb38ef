"""Agent and operator together without a cluster.

Fake GPUs behind the agent's Protocol are sampled and published by the agent's own code; the operator decides on the
objects as an apiserver would hold them, and what it asks for is written back until nothing is left to do.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict, TypeVar, Unpack

from gpufleet_agent.devices.base import DeviceInfo, Reading, SlowReading, UnknownDeviceError
from gpufleet_agent.publish.payload import build_status
from gpufleet_agent.sampling.sampler import Sampler
from gpufleet_agent.sampling.timing import Timing
from gpufleet_api.telemetry.gpu_telemetry import GPUTelemetry
from gpufleet_api.telemetry.spec import Assignment
from gpufleet_api.workload_status import Explanation, WorkloadStatus
from gpufleet_operator.cache import decode, decode_pod
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.decide.template_check import check_templates
from gpufleet_operator.model.extended_resources import DEFAULTS
from gpufleet_operator.model.objects import Pod, Workload
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState

TIMING = Timing(sample=0.01, slow=0.01, window=60, deadline=20, opening=20, retry_first=0.01, retry_max=0.02)
CREATED = "2026-01-01T00:00:00Z"

Json = dict[str, Any]
_T = TypeVar("_T", Workload, Pod)


@dataclass(frozen=True)
class FakeGpu:
    """What a device reports. An exception is raised instead of a reading."""

    info: DeviceInfo
    reading: Reading | Exception
    processes: int = 0


class ReadingFields(TypedDict, total=False):
    memory_total_mib: float | None
    memory_used_mib: float | None
    utilization_percent: float | None
    temperature_celsius: float | None
    power_milliwatts: float | None
    power_limit_milliwatts: float | None


def gpu(
    uuid: str,
    index: int,
    *,
    model: str = "Big",
    failure: Exception | None = None,
    **values: Unpack[ReadingFields],
) -> FakeGpu:
    """A healthy idle device of 80,000 MiB; `failure` is raised when it is read."""
    fields: ReadingFields = {
        "memory_total_mib": 80_000,
        "memory_used_mib": 0,
        "utilization_percent": 0,
        "temperature_celsius": 40,
        "power_milliwatts": 70_000,
        "power_limit_milliwatts": 700_000,
        **values,
    }
    return FakeGpu(DeviceInfo(uuid, index, model), failure or Reading(uuid=uuid, **fields))


@dataclass
class FakeHardware:
    """One node's devices, as `gpufleet_agent.devices.base.Hardware` has it."""

    gpus: Sequence[FakeGpu]
    opening: Exception | None = None
    """Raised when the driver is opened."""
    counting: Exception | None = None
    """Raised when the driver is asked for the number of devices."""
    is_open: bool = False
    known: dict[str, FakeGpu] = field(default_factory=dict)

    def open(self) -> None:
        if self.opening is not None:
            raise self.opening
        self.is_open = True

    def close(self) -> None:
        self.is_open = False

    def driver_version(self) -> str | None:
        return "570.1"

    def device_count(self) -> int:
        if self.counting is not None:
            raise self.counting
        self.known = {}
        return len(self.gpus)

    def identify(self, slot: int) -> str:
        found = self.gpus[slot]
        self.known = {**self.known, found.info.uuid: found}
        return found.info.uuid

    def devices(self) -> tuple[DeviceInfo, ...]:
        return tuple(sorted((g.info for g in self.known.values()), key=lambda info: info.index))

    def read(self, uuid: str) -> Reading:
        found = self._known(uuid)
        if isinstance(found.reading, Exception):
            raise found.reading
        return found.reading

    def read_slow(self, uuid: str) -> SlowReading:
        return SlowReading(uuid=uuid, process_count=self._known(uuid).processes)

    def _known(self, uuid: str) -> FakeGpu:
        if uuid not in self.known:
            raise UnknownDeviceError(uuid, "not registered")
        return self.known[uuid]


def fake_hardware(*gpus: FakeGpu, opening: Exception | None = None, counting: Exception | None = None) -> FakeHardware:
    return FakeHardware(gpus, opening, counting)


async def published(hardware: FakeHardware) -> Json:
    """Returns the status that the agent of this node would publish, sampled once, as JSON."""

    sampler = Sampler(hardware, timing=TIMING)
    await sampler.start()
    observed = datetime.now(UTC).timestamp()
    status = build_status(sampler.snapshot(), {}, generation=1, observed_at=observed, agent_version="0.1.0")
    await sampler.close()
    stored: Json = json.loads(json.dumps(status))
    return stored


@dataclass
class ObjectCluster:
    """Nodes, telemetry, pods and workloads as JSON; `settle` runs decisions and applies them."""

    nodes: dict[str, Json] = field(default_factory=dict)
    telemetry: dict[str, Json] = field(default_factory=dict)
    pods: dict[str, Json] = field(default_factory=dict)
    workloads: dict[str, Json] = field(default_factory=dict)
    state: PassState = field(default_factory=PassState)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    async def join(self, name: str, hardware: FakeHardware) -> None:
        """A node whose agent has published."""
        allocatable = {"cpu": "64", "memory": "256Gi", "pods": "110", "gpufleet.dev/gpu": str(len(hardware.gpus))}
        self.nodes[name] = {"metadata": {"name": name, "uid": name}, "status": {"allocatable": allocatable}}
        fields = {"manager": "gpufleet-agent", "operation": "Apply", "subresource": "status"}
        fields["time"] = self.now.isoformat(timespec="seconds").replace("+00:00", "Z")
        self.telemetry[name] = {
            "apiVersion": "gpufleet.dev/v1alpha1",
            "kind": "GPUTelemetry",
            "metadata": {"name": name, "uid": f"t-{name}", "generation": 1, "managedFields": [fields]},
            "spec": {"assignments": []},
            "status": await published(hardware),
        }

    def apply(self, name: str, **spec: object) -> None:
        """A user's GPUWorkload in namespace ml."""
        meta = {"name": name, "namespace": "ml", "uid": f"w-{name}", "generation": 1, "creationTimestamp": CREATED}
        template = {"spec": {"restartPolicy": "Always", "containers": [{"name": "main", "image": "example:1"}]}}
        self.workloads[name] = {
            "apiVersion": "gpufleet.dev/v1alpha1",
            "kind": "GPUWorkload",
            "metadata": meta,
            "spec": {"template": template, **spec},
        }

    def settle(self) -> None:
        """Decides and applies the writes, until a decision has none."""
        for step in range(8):
            actions = decide(self._snapshot(str(step)))
            self.state = actions.state
            for status in actions.statuses:
                self.workloads[status.name]["status"] = status.status.model_dump(mode="json", exclude_none=True)
            for create in actions.creates:
                meta = {**create.body["metadata"], "uid": f"p-{create.name}", "creationTimestamp": CREATED}
                self.pods[create.name] = {**create.body, "metadata": meta}
            for reserve in actions.reserves:
                body = self.telemetry[reserve.node]
                assert (reserve.uid, reserve.generation) == (body["metadata"]["uid"], body["metadata"]["generation"])
                body["spec"]["assignments"] = [
                    a.model_dump(mode="json", exclude_none=True) for a in reserve.assignments
                ]
                body["metadata"]["generation"] += bool(reserve.added or reserve.removed)
            # Pods are not released here, so a proof of their reservations is written in each pass.
            if not (actions.creates or any(r.added or r.removed for r in actions.reserves)):
                return
        raise AssertionError("the operator doesn't come to rest")

    def assignments(self, workload: str) -> dict[int, tuple[str, Assignment]]:
        """Returns node and reservation of each replica."""
        found = {}
        for name, body in self.telemetry.items():
            for one in GPUTelemetry.model_validate(body).spec.assignments:
                if one.workload == workload:
                    found[one.replica] = (name, one)
        return dict(sorted(found.items()))

    def status(self, workload: str) -> WorkloadStatus:
        """Returns the stored status."""
        return WorkloadStatus.model_validate(self.workloads[workload]["status"])

    def explanation(self, workload: str) -> Explanation:
        """Returns the explanation in the stored status."""
        found = self.status(workload).explanation
        assert found is not None
        return found

    def _snapshot(self, name_seed: str) -> Snapshot:
        workloads = _by_uid(decode.workload(body) for body in self.workloads.values())
        return Snapshot(
            now=self.now + timedelta(seconds=1),
            name_seed=name_seed,
            templates=check_templates(workloads, self.state.templates, DEFAULTS),
            workloads=workloads,
            telemetry={name: decode.telemetry(body) for name, body in self.telemetry.items()},
            pods=_by_uid(decode_pod.pod(body) for body in self.pods.values()),
            nodes={name: decode.node(body) for name, body in self.nodes.items()},
            previous_state=self.state,
        )


def _by_uid(items: Iterable[_T]) -> Mapping[str, _T]:
    return {item.uid: item for item in items}
