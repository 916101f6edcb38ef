"""Checks the template of each workload, once per generation: whether pods can be created from it.

A template is free-form. An error that no validation rule prevents would end the process, again after each restart, and
block all workloads. Therefore everything that reads the template later is run here once, and an unexpected exception
becomes an error of that one workload.
"""

import traceback
from collections.abc import Mapping
from dataclasses import replace

from gpufleet_api.names import TEMPLATE_HASH_LABEL
from gpufleet_api.workload import GPUWorkload, WorkloadSpec
from gpufleet_common.field_errors import internal
from gpufleet_operator.fleet.engine_input import request
from gpufleet_operator.model.extended_resources import Resources
from gpufleet_operator.model.objects import Workload
from gpufleet_operator.model.pod_policy import DEFAULT_POLICY, PodPolicy
from gpufleet_operator.model.state_types import TemplateCheck
from gpufleet_operator.placement.packing import PodType
from gpufleet_operator.pods import build, validate
from gpufleet_operator.pods.template_hash import template_hash
from gpufleet_operator.pods.traits import pod_traits

_PATH = "spec.template"
_MAX_ERROR_LENGTH = 512
_VOLUMES = "volumes"
_WITH_OWN_LABELS = ("affinity", "topologySpreadConstraints")


def check_templates(
    workloads: Mapping[str, Workload],
    known: Mapping[str, TemplateCheck],
    resources: Resources,
    policy: PodPolicy = DEFAULT_POLICY,
) -> dict[str, TemplateCheck]:
    """Returns the check of each workload that parses, by uid.

    Args:
        workloads: By uid.
        known: Earlier checks, by uid. Those of the current generation are kept.
        resources: The extended resources of devices.
        policy: What templates may request.
    """
    checks: dict[str, TemplateCheck] = {}
    valid: dict[tuple[object, ...], TemplateCheck] = {}
    for uid, workload in workloads.items():
        if workload.model is None:
            continue
        check = known.get(uid)
        if check is None or check.generation != workload.generation:
            spec = workload.model.spec
            key = _content(spec)
            same = valid.get(key)
            if same is None or any(validate.validate_metadata(spec)):
                check = check_template(workload, workload.model, resources, policy)
            else:
                check = replace(same, generation=workload.generation, template_hash=_hash(workload.model))
            if not check.errors:
                valid[key] = check
        checks[uid] = check
    return checks


def _content(spec: WorkloadSpec) -> tuple[object, ...]:
    """Returns what a check depends on, except metadata. Equal parts of cached workloads are mostly the same object.

    The ids are valid as long as the workloads exist. Volumes are not read before the pod exists.
    """
    parts = (spec.devices, spec.requirements, spec.placement, spec.network)
    pod = ((name, value if type(value) is str else id(value)) for name, value in spec.pod_spec.items())
    return (*map(id, parts), spec.adopts, *(part for part in pod if part[0] != _VOLUMES))


def check_template(
    workload: Workload, model: GPUWorkload, resources: Resources, policy: PodPolicy = DEFAULT_POLICY
) -> TemplateCheck:
    """Validates the template of one workload. Never raises."""
    try:
        errors = validate.validate_template(model.spec, resources, policy)
        checked = not errors and not model.spec.adopts
        pod_type, built_from = _build_once(workload, model, resources, policy) if checked else (None, "")
    except Exception as error:  # noqa: BLE001 - any exception fails this workload only
        message = internal(_PATH, f"{type(error).__name__}: {error}"[:_MAX_ERROR_LENGTH])
        return TemplateCheck(workload.generation, (message,), unexpected_error=traceback.format_exc())
    return TemplateCheck(workload.generation, errors, built_from or _hash(model), pod_type)


def _hash(model: GPUWorkload) -> str:
    """Returns the hash of the template; empty if it is too malformed to have one."""
    try:
        return template_hash(model.spec)
    except (AttributeError, LookupError, TypeError):
        return ""


def _build_once(
    workload: Workload, model: GPUWorkload, resources: Resources, policy: PodPolicy
) -> tuple[PodType | None, str]:
    """Runs all code that reads the template later.

    Returns what a replica requests, None for shares, and the hash of the template.
    """
    body = build.build(workload, model.spec, 0, workload.name, resources, policy=policy)
    # Only these fields refer to the pod's own labels, and the labels of each pod differ.
    compares = any(body["spec"].get(name) for name in _WITH_OWN_LABELS)
    pod_traits(workload.namespace, body["metadata"]["labels"] if compares else {}, body["spec"])
    requested = request(model, replicas=(0,), resources=resources)
    pod_type = PodType.of(requested, 1)
    built_from: str = body["metadata"]["labels"][TEMPLATE_HASH_LABEL]
    return pod_type if requested.devices.share is None else None, built_from
