"""Resources and schedulers that templates may use in this cluster, and the tolerations that pods get."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from gpufleet_api.names import FORBIDDEN_RESOURCES, SCHEDULERS, TOLERATED_TAINTS


@dataclass(frozen=True, slots=True)
class PodPolicy:
    """Settings on the pods of workloads."""

    forbidden_resources: tuple[str, ...] = FORBIDDEN_RESOURCES
    """Names that a template may not request; `*` matches any characters."""
    schedulers: tuple[str, ...] = SCHEDULERS
    """Names that `schedulerName` may have: a pod with another one would hold its devices and never start."""
    tolerated_taints: tuple[str, ...] = TOLERATED_TAINTS
    """Keys of taints with effect NoSchedule that pods tolerate without a toleration in the template."""

    def forbidden_pattern(self, resource: str) -> str | None:
        """Returns the pattern of `forbidden_resources` that the name matches."""
        return next((pattern for pattern in self.forbidden_resources if _matches(pattern, resource)), None)


DEFAULT_POLICY: Final = PodPolicy()


@lru_cache(maxsize=4096)
def _matches(pattern: str, name: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None


def tolerations(given: object, policy: PodPolicy) -> list[Any]:
    """Returns a template's tolerations and those of the policy, in the form of ExtendedResourceToleration."""
    found = list(given) if isinstance(given, list | tuple) else []
    added = ({"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in policy.tolerated_taints)
    return [*found, *(toleration for toleration in added if toleration not in found)]
