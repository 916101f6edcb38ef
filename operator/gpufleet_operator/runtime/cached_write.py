"""Keeps the cache in step with a write that is rejected because the object has changed or is gone."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from gpufleet_operator.cache.store import Store
from gpufleet_operator.kube.errors import ConflictError, NotFoundError, PatchConflictError
from gpufleet_operator.model.objects import BoundPod, Node, Pod, Telemetry, Workload

D = TypeVar("D", BoundPod, Pod, Workload)


@contextmanager
def rejections_in(store: Store[Pod] | Store[Telemetry] | Store[Node], uid: str) -> Generator[None]:
    """Applies the rejection of a write in the block to the cache.

    Args:
        store: Where the object is cached.
        uid: Of the object that the decision was made on.

    Raises:
        PatchConflictError: The object changed; the cache has its current state.
        ConflictError: It was deleted, also in the cache.
    """
    try:
        yield
    except PatchConflictError as error:
        store.apply(error.current)
        raise
    except NotFoundError as error:
        store.remove(uid, "")
        raise ConflictError(str(error), error.code) from error


def mark_deleting(store: Store[D], uid: str) -> None:
    """Marks a cached object as being deleted: the response to a deletion does not contain it."""
    item = store.items.get(uid)
    if item is not None:
        store.put(replace(item, deleting=True))
