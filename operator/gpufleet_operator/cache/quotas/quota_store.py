"""Stores ResourceQuotas, to detect when one has more room."""

from collections.abc import Callable

from gpufleet_operator.cache.store import SelectorStore
from gpufleet_operator.model.lenient_json import Json, as_map, text
from gpufleet_operator.model.objects import ResourceQuota
from gpufleet_operator.pods.quota import has_more_room, room


def resource_quota(body: Json) -> ResourceQuota:
    meta, status = body["metadata"], as_map(body.get("status"))
    return ResourceQuota(
        uid=meta["uid"],
        resource_version=meta.get("resourceVersion", ""),
        namespace=text(meta.get("namespace")),
        hard={name: str(amount) for name, amount in as_map(status.get("hard")).items()},
        used={name: str(amount) for name, amount in as_map(status.get("used")).items()},
    )


class QuotaStore(SelectorStore[ResourceQuota]):
    """Quotas by UID. Every new pod changes one, so `changed` is called only when room is freed."""

    def __init__(self, decode: Callable[[Json], ResourceQuota | None], changed: Callable[[], None]) -> None:
        super().__init__(decode, lambda: None)
        self._has_room = changed

    def on_replace(self, old: ResourceQuota | None, new: ResourceQuota | None) -> None:
        if old is not None and has_more_room(room([old]), room([new] if new is not None else [])):
            self._has_room()
