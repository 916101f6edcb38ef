"""ResourceClaims of workloads, by the pods that own them."""

from collections.abc import Callable

from gpufleet_operator.cache.store import TombstoneStore
from gpufleet_operator.model.claims.resource_claim import PodKey, ResourceClaim
from gpufleet_operator.model.lenient_json import Json


class ClaimStore(TombstoneStore[ResourceClaim]):
    """Claims by uid and by the pod that owns them."""

    def __init__(self, decode: Callable[[Json], ResourceClaim | None], changed: Callable[[], None]) -> None:
        super().__init__(decode, changed)
        self.by_pod: dict[PodKey, dict[str, ResourceClaim]] = {}
        """Key of the pod -> name of the claim -> claim."""

    def on_replace(self, old: ResourceClaim | None, new: ResourceClaim | None) -> None:
        if old is not None:
            of_pod = self.by_pod.get(old.pod_key, {})
            # A claim of the same name may have been created before the deletion of this one was noticed.
            if old.name in of_pod and of_pod[old.name].uid == old.uid:
                del of_pod[old.name]
            if not of_pod:
                self.by_pod.pop(old.pod_key, None)
        if new is not None:
            self.by_pod.setdefault(new.pod_key, {})[new.name] = new
