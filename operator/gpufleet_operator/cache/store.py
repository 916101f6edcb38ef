"""A versioned copy of one kind of object, fed from several sides at once.

The same object reaches us by a watch, by the answer to our own write and by the periodic list, in any order. The
newest version wins, so that a late watch event never takes back what our own write has told us, and a deleted object
isn't brought back by an older report.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar


class Stored(Protocol):
    """What a projection must carry: identity and version."""

    @property
    def uid(self) -> str:
        """metadata.uid."""

    @property
    def resource_version(self) -> str:
        """metadata.resourceVersion."""


T = TypeVar("T", bound=Stored)

_GRAVES = 20_000
"""How many deleted uids are remembered."""


class Store(Generic[T]):
    """Objects by uid.

    Args:
        changed: called after a change that means something (a new version with equal fields doesn't).
    """

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self.items: dict[str, T] = {}
        self._graves: OrderedDict[str, str] = OrderedDict()
        """Uid -> the version at which it left; empty: it is known to be deleted."""
        self._changed = changed

    def put(self, item: T) -> None:
        """Keep the object, unless what we have is newer or it is known to be gone."""
        old = self.items.get(item.uid)
        if old is not None and newer(old.resource_version, item.resource_version):
            return
        if item.uid in self._graves:
            if not newer(item.resource_version, self._graves[item.uid]):
                return
            del self._graves[item.uid]  # it only didn't match our selector for a while
        self.items[item.uid] = item
        if old is None or _different(old, item):
            self.replaced(old, item)
            self._changed()

    def remove(self, uid: str, version: str) -> None:
        """Forget the object as of `version`; without one for good.

        A watch with a selector tells in the same way of an object that is deleted and of one that no longer matches.
        Only the latter comes back, in a later version.
        """
        self._graves[uid] = version
        self._graves.move_to_end(uid)
        while len(self._graves) > _GRAVES:
            self._graves.popitem(last=False)
        old = self.items.pop(uid, None)
        if old is not None:
            self.replaced(old, None)
            self._changed()

    def replace(self, items: Sequence[T], version: str, unread: Collection[str] = ()) -> None:
        """A complete list, as of `version`: what isn't in it and isn't younger is gone.

        Args:
            items: what could be read of the list.
            version: the list's.
            unread: uids of what couldn't; such an object stays as it was last known.
        """
        for item in items:
            self.put(item)
        listed = {item.uid for item in items}.union(unread)
        missing = [i for i in self.items.values() if i.uid not in listed and not newer(i.resource_version, version)]
        for item in missing:
            self.remove(item.uid, version)

    def replaced(self, old: T | None, new: T | None) -> None:
        """For subclasses that keep something derived."""


class LeavingStore(Store[T]):
    """For a collection with selectors, where an object can stop matching and come back: no graves."""

    def remove(self, uid: str, version: str) -> None:
        """Forget the object, unless what we have is newer than its leaving."""
        old = self.items.get(uid)
        if old is None or newer(old.resource_version, version):
            return
        del self.items[uid]
        self.replaced(old, None)
        self._changed()


def newer(one: str, other: str) -> bool:
    """True when resource version `one` is later, False when one isn't known; they are numbers within a cluster."""
    return one.isdigit() and other.isdigit() and int(one) > int(other)


def _different(old: Any, new: Any) -> bool:
    return bool(replace(old, resource_version=new.resource_version) != new)
