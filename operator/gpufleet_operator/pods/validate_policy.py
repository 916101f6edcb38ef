"""Rejects templates whose pods would get devices without a reservation, or would have no scheduler."""

from collections.abc import Iterator, Mapping
from typing import Any

from gpufleet_api.pod_template import RESOURCE_CLAIMS
from gpufleet_common.field_errors import forbidden, unsupported
from gpufleet_operator.model.extended_resources import Resources
from gpufleet_operator.model.pod_policy import PodPolicy
from gpufleet_operator.pods.validate_spec import Errors


def validate_policy(pod: Mapping[str, Any], path: str, resources: Resources, policy: PodPolicy) -> Errors:
    """Yields errors of scheduler, claims, and resources of other device plugins. Malformed fields are ignored."""
    scheduler = pod.get("schedulerName")
    if scheduler and scheduler not in policy.schedulers:
        yield unsupported(f"{path}.schedulerName", scheduler, policy.schedulers)
    if pod.get("resourceClaims"):
        yield forbidden(f"{path}.resourceClaims", RESOURCE_CLAIMS.message)
    for at, amounts in _amounts(pod, path):
        for name in amounts:
            pattern = None if name in resources.names else policy.forbidden_pattern(str(name))
            if pattern is not None:
                yield forbidden(
                    f"{at}[{name}]", f"matches {pattern} of --forbidden-resources; request devices in spec.devices"
                )
    for at, container in _containers(pod, path):
        given = container.get("resources")
        if isinstance(given, Mapping) and given.get("claims"):
            yield forbidden(f"{at}.resources.claims", RESOURCE_CLAIMS.message)


def _amounts(pod: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the path and the value of each `limits` and `requests`."""
    for at, holder in ((path, pod), *_containers(pod, path)):
        given = holder.get("resources")
        for kind in ("limits", "requests"):
            amounts = given.get(kind) if isinstance(given, Mapping) else None
            if isinstance(amounts, Mapping):
                yield f"{at}.resources.{kind}", amounts


def _containers(pod: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for kind in ("containers", "initContainers"):
        listed = pod.get(kind)
        for index, container in enumerate(listed if isinstance(listed, list | tuple) else ()):
            if isinstance(container, Mapping):
                yield f"{path}.{kind}[{index}]", container
