"""The API's CEL rules for new objects, in Python: only the apiserver runs CEL.

A test compares the rules here with those of the models.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from gpufleet_api.base import ApiModel
from gpufleet_api.markers import Cel
from gpufleet_api.pod_template import CONTAINER_CLAIMS, RESOURCE_CLAIMS, RESTART_POLICY
from gpufleet_api.workload import (
    MAX_NAME,
    CapacityMeasure,
    DeviceMode,
    Devices,
    Distribution,
    DistributionMode,
    GPUWorkload,
    Requirements,
    WorkloadSpec,
)
from gpufleet_api.workload_placement import DemandSource, OnPressure, Weights
from gpufleet_api.workload_policies import RunPolicy, UpdateStrategy
from gpufleet_cli.input.field_errors import of_rule
from gpufleet_operator.model.lenient_json import as_list, as_map, maps


@dataclass(frozen=True, slots=True)
class RuleCheck:
    """A rule as a condition on the whole workload."""

    rule: Cel
    path: str
    """The field of the error."""
    holds: Callable[[GPUWorkload], bool]
    value: Callable[[GPUWorkload], object]
    """Returns the value of the field."""


def _included_and_excluded(workload: GPUWorkload) -> list[str]:
    needed = workload.spec.requirements or Requirements()
    return sorted(set(needed.include_uuids) & set(needed.exclude_uuids))


def _score_weights(workload: GPUWorkload) -> dict[str, int]:
    return workload.spec.placement.weights.model_dump()


def _by_if_uniform(workload: GPUWorkload) -> str | None:
    distribution = workload.spec.distribution
    return distribution.by if distribution and distribution.mode is DistributionMode.UNIFORM else None


def _distribution_weights(workload: GPUWorkload) -> list[int] | None:
    distribution = workload.spec.distribution
    return distribution.weights if distribution else None


def _if_exclusive(workload: GPUWorkload, value: int | None) -> int | None:
    return value if workload.spec.devices.mode is DeviceMode.EXCLUSIVE else None


def _is_shared(workload: GPUWorkload) -> bool:
    return workload.spec.devices.mode is DeviceMode.SHARED


def _moves(workload: GPUWorkload) -> bool:
    return workload.spec.placement.on_pressure is OnPressure.MOVE


def _pod_field(workload: GPUWorkload, name: str) -> object:
    return workload.spec.pod_spec.get(name)


def _container_claims(workload: GPUWorkload) -> list[object]:
    """Returns the claims of all containers; malformed containers are reported elsewhere."""
    pods = workload.spec.pod_spec
    kinds = (maps(pods.get(kind)) for kind in ("initContainers", "containers"))
    resources = (as_map(container.get("resources")) for containers in kinds for container in containers)
    return [claim for one in resources for claim in as_list(one.get("claims"))]


def _rule(model: type[ApiModel], field: str | None = None, text: str = "") -> Cel:
    """Returns the single rule of a model for new objects about a field, whose expression contains `text`."""
    (rule,) = (
        rule for rule in model.rules if rule.field_path == field and text in rule.rule and "oldSelf" not in rule.rule
    )
    return rule


CHECKS: Final = (
    RuleCheck(
        _rule(GPUWorkload), "metadata.name", lambda w: len(w.metadata.name) <= MAX_NAME, lambda w: w.metadata.name
    ),
    RuleCheck(
        _rule(Devices, ".memoryMiB", "!= 'Shared'"),
        "spec.devices.memoryMiB",
        lambda w: w.spec.devices.mode is DeviceMode.EXCLUSIVE or w.spec.devices.memory_mib is not None,
        lambda w: w.spec.devices.memory_mib,
    ),
    RuleCheck(
        _rule(Devices, ".memoryMiB", "== 'Shared'"),
        "spec.devices.memoryMiB",
        lambda w: _if_exclusive(w, w.spec.devices.memory_mib) is None,
        lambda w: w.spec.devices.memory_mib,
    ),
    RuleCheck(
        _rule(Devices, ".computePercent"),
        "spec.devices.computePercent",
        lambda w: _if_exclusive(w, w.spec.devices.compute_percent) is None,
        lambda w: w.spec.devices.compute_percent,
    ),
    RuleCheck(
        _rule(Devices, ".container"),
        "spec.devices.container",
        lambda w: not w.spec.devices.containers or w.spec.devices.container is None,
        lambda w: w.spec.devices.container,
    ),
    RuleCheck(
        _rule(Devices, ".count"),
        "spec.devices.count",
        lambda w: (
            not w.spec.devices.containers or sum(one.count for one in w.spec.devices.containers) == w.spec.devices.count
        ),
        lambda w: w.spec.devices.count,
    ),
    RuleCheck(
        _rule(Requirements, ".excludeUUIDs"),
        "spec.requirements.excludeUUIDs",
        lambda w: not _included_and_excluded(w),
        _included_and_excluded,
    ),
    RuleCheck(_rule(Weights), "spec.placement.weights", lambda w: any(_score_weights(w).values()), _score_weights),
    RuleCheck(_rule(Distribution, ".by"), "spec.distribution.by", lambda w: _by_if_uniform(w) is None, _by_if_uniform),
    RuleCheck(
        _rule(Distribution, ".weights", "self.by"),
        "spec.distribution.weights",
        lambda w: (
            w.spec.distribution is None
            or (w.spec.distribution.by is CapacityMeasure.WEIGHTS) == (_distribution_weights(w) is not None)
        ),
        _distribution_weights,
    ),
    RuleCheck(
        _rule(Distribution, ".weights", "exists"),
        "spec.distribution.weights",
        lambda w: _distribution_weights(w) is None or any(_distribution_weights(w) or ()),
        _distribution_weights,
    ),
    RuleCheck(
        RESTART_POLICY,
        "spec.template.spec.restartPolicy",
        lambda w: w.spec.adopts or _pod_field(w, "restartPolicy") is not None,
        lambda w: _pod_field(w, "restartPolicy"),
    ),
    RuleCheck(
        CONTAINER_CLAIMS,
        "spec.template.spec.containers.resources.claims",
        lambda w: not _container_claims(w),
        _container_claims,
    ),
    RuleCheck(
        RESOURCE_CLAIMS,
        "spec.template.spec.resourceClaims",
        lambda w: not _pod_field(w, "resourceClaims"),
        lambda w: _pod_field(w, "resourceClaims"),
    ),
    RuleCheck(
        _rule(WorkloadSpec, ".distribution.weights"),
        "spec.distribution.weights",
        lambda w: _distribution_weights(w) is None or len(_distribution_weights(w) or ()) == w.spec.replicas,
        _distribution_weights,
    ),
    RuleCheck(
        _rule(WorkloadSpec, ".placement.gang"),
        "spec.placement.gang",
        lambda w: w.spec.distribution is None or w.spec.placement.gang,
        lambda w: w.spec.placement.gang,
    ),
    RuleCheck(
        _rule(WorkloadSpec, ".placement.onPressure", "has(self.template)"),
        "spec.placement.onPressure",
        lambda w: not (w.spec.adopts and _moves(w)),
        lambda w: w.spec.placement.on_pressure,
    ),
    RuleCheck(
        _rule(WorkloadSpec, ".placement.onPressure", "self.devices.mode"),
        "spec.placement.onPressure",
        lambda w: not _moves(w) or (_is_shared(w) and w.spec.devices.count == 1 and not w.spec.placement.gang),
        lambda w: w.spec.placement.on_pressure,
    ),
    RuleCheck(
        _rule(WorkloadSpec, ".placement.reclaim"),
        "spec.placement.reclaim",
        lambda w: _is_shared(w) or w.spec.placement.reclaim is None,
        lambda w: w.spec.placement.reclaim,
    ),
    RuleCheck(
        _rule(WorkloadSpec, ".placement.demand"),
        "spec.placement.demand",
        lambda w: _is_shared(w) or w.spec.placement.demand is DemandSource.PROMISED,
        lambda w: w.spec.placement.demand,
    ),
    RuleCheck(
        _rule(WorkloadSpec, ".replicas"),
        "spec.replicas",
        lambda w: not w.spec.adopts or (w.spec.replicas >= 1 if w.spec.placement.gang else w.spec.replicas == 1),
        lambda w: w.spec.replicas,
    ),
    RuleCheck(
        _rule(WorkloadSpec, ".runPolicy"),
        "spec.runPolicy",
        lambda w: not w.spec.adopts or w.spec.run_policy == RunPolicy(),
        lambda w: w.spec.run_policy.model_dump(by_alias=True, exclude_none=True),
    ),
    RuleCheck(
        _rule(WorkloadSpec, ".updateStrategy"),
        "spec.updateStrategy",
        lambda w: not w.spec.adopts or w.spec.update_strategy == UpdateStrategy(),
        lambda w: w.spec.update_strategy.model_dump(by_alias=True, exclude_none=True),
    ),
)


def violations(workload: GPUWorkload) -> Iterator[str]:
    """Yields the error of every rule that the workload violates."""
    for check in CHECKS:
        if not check.holds(workload):
            yield of_rule(check.rule, check.path, check.value(workload))
