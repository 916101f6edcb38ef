"""Keeps the cache in step with a write that is rejected because the object has changed or is gone."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from gpufleet_operator.cache.store import Store
from gpufleet_operator.kube.errors import ConflictError, NotFoundError, PatchConflictError
from gpufleet_operator.model.claims.resource_claim import ResourceClaim
from gpufleet_operator.model.objects import BoundPod, Node, Pod, Service, Telemetry, Workload

D = TypeVar("D", BoundPod, Pod, ResourceClaim, Workload)


@contextmanager
def rejections_in(store: Store[Pod] | Store[Telemetry] | Store[Node] | Store[Service], uid: str) -> Generator[None]:
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


@contextmanager
def creation_again_if_missing() -> Generator[None]:
    """Has a creation decided again whose namespace was deleted, or the object of an unconfirmed earlier creation.

    Raises:
        ConflictError: Instead of NotFoundError.
    """
    try:
        yield
    except NotFoundError as error:
        raise ConflictError(str(error), error.code) from error


def mark_deleting(store: Store[D], uid: str) -> None:
    """Marks a cached object as being deleted: the response to a deletion does not contain it."""
    item = store.items.get(uid)
    if item is not None:
        store.put(replace(item, deleting=True))
