"""The API's CEL rules that hold for a new object, in Python: the apiserver runs CEL, this command can't.

A test compares the rules here with those in the models, so that none is forgotten.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from gpufleet_api.markers import Cel
from gpufleet_api.workload import (
    MAX_NAME,
    CapacityMeasure,
    DeviceMode,
    Devices,
    Distribution,
    DistributionMode,
    GPUWorkload,
    Requirements,
    Weights,
    WorkloadSpec,
)
from gpufleet_cli.input.documents import show


@dataclass(frozen=True, slots=True)
class Check:
    """One rule as a condition on the whole workload."""

    rule: Cel
    path: str
    """The field that the message points at."""
    holds: Callable[[GPUWorkload], bool]
    value: Callable[[GPUWorkload], object]
    """What stands in the field."""


def _both(workload: GPUWorkload) -> list[str]:
    needed = workload.spec.requirements or Requirements()
    return sorted(set(needed.include_uuids) & set(needed.exclude_uuids))


def _weights(workload: GPUWorkload) -> dict[str, int]:
    return workload.spec.placement.weights.model_dump()


def _by(workload: GPUWorkload) -> str | None:
    distribution = workload.spec.distribution
    return distribution.by if distribution and distribution.mode is DistributionMode.UNIFORM else None


def _parts(workload: GPUWorkload) -> list[int] | None:
    distribution = workload.spec.distribution
    return distribution.weights if distribution else None


def _promised(workload: GPUWorkload, value: int | None) -> int | None:
    """What must not be there with whole devices."""
    return value if workload.spec.devices.mode is DeviceMode.EXCLUSIVE else None


CHECKS: Final = (
    Check(GPUWorkload.rules[0], "metadata.name", lambda w: len(w.metadata.name) <= MAX_NAME, lambda w: w.metadata.name),
    Check(
        Devices.rules[0],
        "spec.devices.memoryMiB",
        lambda w: w.spec.devices.mode is DeviceMode.EXCLUSIVE or w.spec.devices.memory_mib is not None,
        lambda w: w.spec.devices.memory_mib,
    ),
    Check(
        Devices.rules[1],
        "spec.devices.memoryMiB",
        lambda w: _promised(w, w.spec.devices.memory_mib) is None,
        lambda w: w.spec.devices.memory_mib,
    ),
    Check(
        Devices.rules[2],
        "spec.devices.computePercent",
        lambda w: _promised(w, w.spec.devices.compute_percent) is None,
        lambda w: w.spec.devices.compute_percent,
    ),
    Check(Requirements.rules[0], "spec.requirements.excludeUUIDs", lambda w: not _both(w), _both),
    Check(Weights.rules[0], "spec.placement.weights", lambda w: any(_weights(w).values()), _weights),
    Check(Distribution.rules[0], "spec.distribution.by", lambda w: _by(w) is None, _by),
    Check(
        Distribution.rules[1],
        "spec.distribution.weights",
        lambda w: (
            w.spec.distribution is None
            or (w.spec.distribution.by is CapacityMeasure.WEIGHTS) == (_parts(w) is not None)
        ),
        _parts,
    ),
    Check(
        Distribution.rules[2], "spec.distribution.weights", lambda w: _parts(w) is None or any(_parts(w) or ()), _parts
    ),
    Check(
        WorkloadSpec.rules[-2],
        "spec.distribution.weights",
        lambda w: _parts(w) is None or len(_parts(w) or ()) == w.spec.replicas,
        _parts,
    ),
    Check(
        WorkloadSpec.rules[-1],
        "spec.placement.gang",
        lambda w: w.spec.distribution is None or w.spec.placement.gang,
        lambda w: w.spec.placement.gang,
    ),
)


def broken(workload: GPUWorkload) -> Iterator[str]:
    """Path, message and value of every rule that the workload breaks."""
    for check in CHECKS:
        if not check.holds(workload):
            yield f"{check.path}: {check.rule.message} (got {show(check.value(workload))})"
