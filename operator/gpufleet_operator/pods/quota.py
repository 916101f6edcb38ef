"""Whether several equal pods fit into the ResourceQuotas of a namespace together, as the apiserver counts them.

The apiserver checks one pod at a time, so a part of a gang would be created and hold quota that others could use.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from gpufleet_operator.model.lenient_json import Json, as_map, maps, text
from gpufleet_operator.model.objects import ResourceQuota
from gpufleet_operator.pods.quantities import milli, whole
from gpufleet_operator.pods.requests import pod_requests


def exceeded(quotas: Iterable[Json], pod: Json, count: int) -> str:
    """Returns why `count` such pods exceed a quota, in the words of the apiserver; empty if they fit.

    A quota with scopes, or without a status, is not checked here: the apiserver is asked when the pods are created.

    Args:
        quotas: The ResourceQuotas of the namespace.
        pod: One pod after admission, with the defaults of LimitRanges.
        count: Number of pods.
    """
    usage = {name: amount * count for name, amount in pod_usage(as_map(pod.get("spec"))).items()}
    for quota in quotas:
        spec, status = as_map(quota.get("spec")), as_map(quota.get("status"))
        if spec.get("scopes") or spec.get("scopeSelector"):
            continue
        hard, used = as_map(status.get("hard")), as_map(status.get("used"))
        over = [
            name
            for name, limit in sorted(hard.items())
            if usage.get(name) and _amount(name, used.get(name)) + usage[name] > _amount(name, limit)
        ]
        if over:
            asked = ",".join(f"{name}={_shown(name, usage[name])}" for name in over)
            before = ",".join(f"{name}={used.get(name, 0)}" for name in over)
            limits = ",".join(f"{name}={hard[name]}" for name in over)
            name = text(as_map(quota.get("metadata")).get("name"))
            return f"exceeded quota: {name}, requested: {asked}, used: {before}, limited: {limits}"
    return ""


def room(quotas: Iterable[ResourceQuota]) -> dict[tuple[str, str], int]:
    """Returns the remaining amounts by uid of the quota and name of the resource; negative if overdrawn."""
    return {
        (quota.uid, name): _amount(name, limit) - _amount(name, quota.used.get(name))
        for quota in quotas
        for name, limit in quota.hard.items()
    }


def has_more_room(before: Mapping[tuple[str, str], int], after: Mapping[tuple[str, str], int]) -> bool:
    """Returns whether a rejected pod may fit now: a remaining amount increased, or is no longer limited."""
    return any(key not in after or after[key] > amount for key, amount in before.items())


def pod_usage(spec: Json) -> dict[str, int]:
    """Returns what a pod counts against a quota, by the names of `spec.hard`: CPU in millicores, the rest in units."""
    requests = pod_requests(spec)
    usage = {"pods": 1, "count/pods": 1}
    for name, amount in requests.items():
        usage[f"requests.{name}"] = amount
        if "/" not in name:
            usage[name] = amount
    return usage | {f"limits.{name}": amount for name, amount in pod_requests(_limits_as_requests(spec)).items()}


def _limits_as_requests(spec: Json) -> Mapping[str, Any]:
    def swapped(holder: Json) -> dict[str, Any]:
        return {**holder, "resources": {"requests": as_map(as_map(holder.get("resources")).get("limits"))}}

    kinds = ("containers", "initContainers")
    return {**swapped(spec), **{kind: [swapped(c) for c in maps(spec.get(kind))] for kind in kinds}}


def _amount(name: str, value: Any) -> int:
    return milli(value) if _is_cpu(name) else whole(value)


def _shown(name: str, amount: int) -> str:
    return f"{amount}m" if _is_cpu(name) and amount % 1000 else str(amount // 1000 if _is_cpu(name) else amount)


def _is_cpu(name: str) -> bool:
    return name in {"cpu", "requests.cpu", "limits.cpu"}
