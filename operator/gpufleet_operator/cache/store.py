"""Versioned copies of API objects, one store for each kind.

An object reaches a store by a watch, by the response to our own write and by the periodic list, in any order. The
newest version wins, so that a late watch event never undoes what our own write returned, and an older report never
restores a deleted object.
"""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import fields
from functools import cache
from operator import attrgetter
from typing import Any, Generic, Protocol, TypeVar

from gpufleet_operator.model.lenient_json import Json

_MAX_TOMBSTONES = 20_000


class Stored(Protocol):
    """An object with identity and version."""

    @property
    def uid(self) -> str: ...

    @property
    def resource_version(self) -> str: ...


T = TypeVar("T", bound=Stored)


class Store(ABC, Generic[T]):
    """Objects by uid.

    Args:
        decode: Returns the stored form of a JSON object; None if it cannot be decoded, which leaves the store as it is.
        changed: Called after each change, except for a new version with equal fields.
    """

    def __init__(self, decode: Callable[[Json], T | None], changed: Callable[[], None]) -> None:
        self.decode = decode
        self.items: dict[str, T] = {}
        self.observer: Callable[[T | None, T | None], None] = lambda old, new: None  # noqa: ARG005
        """Called after each change with the object before and after it; None: absent."""
        self._changed = changed

    def apply(self, body: Json) -> None:
        """Adds or updates an object of the API. The stored version is not decoded again.

        A watch also reports the operator's own writes, whose responses are stored already.
        """
        if self.known(body) is not None:
            return
        if (item := self.decode(body)) is not None:
            self.put(item)

    def known(self, body: Json) -> T | None:
        """Returns the stored form of an object of the API if it has the same version."""
        uid, version = identity(body)
        stored = self.items.get(uid)
        return stored if stored is not None and version and stored.resource_version == version else None

    def delete(self, body: Json) -> None:
        """Removes an object of the API; `body` is its last state."""
        self.remove(*identity(body))

    def put(self, item: T) -> None:
        """Adds or updates an object, unless the stored version is newer."""
        old = self.items.get(item.uid)
        if old is item or (old is not None and newer(old.resource_version, item.resource_version)):
            return
        differs = old is None or _differ(old, item)
        if not differs and old is not None and old.resource_version == item.resource_version:
            return  # each list repeats every object: the stored one is kept
        self.items[item.uid] = item
        self.on_replace(old, item)
        if differs:
            self.observer(old, item)
            self.note_change(old, item)

    @abstractmethod
    def remove(self, uid: str, version: str) -> None:
        """Removes an object as of `version`."""

    def replace(self, items: Sequence[T], version: str, undecodable: Collection[str] = ()) -> None:
        """Applies a complete list: objects that are missing from it and not newer are removed.

        Args:
            items: Objects of the list.
            version: Version of the list.
            undecodable: Uids of listed objects that could not be decoded; the stored ones are kept.
        """
        for item in items:
            self.put(item)
        listed = {item.uid for item in items}.union(undecodable)
        missing = [i for i in self.items.values() if i.uid not in listed and not newer(i.resource_version, version)]
        for item in missing:
            self.remove(item.uid, version)

    def on_replace(self, old: T | None, new: T | None) -> None:
        """Hook for subclasses that derive data from the objects, for each stored version. None: absent."""

    def note_change(self, old: T | None, new: T | None) -> None:
        """Hook for subclasses with changes that are less urgent. None: absent."""
        del old, new
        self._changed()

    def _pop(self, uid: str) -> None:
        old = self.items.pop(uid, None)
        if old is not None:
            self.on_replace(old, None)
            self.observer(old, None)
            self.note_change(old, None)


class TombstoneStore(Store[T]):
    """A store that remembers removals, for objects that are also reported by others than their watch."""

    def __init__(self, decode: Callable[[Json], T | None], changed: Callable[[], None]) -> None:
        super().__init__(decode, changed)
        self._tombstones: OrderedDict[str, str] = OrderedDict()
        """Uid -> the version as of which it was removed; empty: it is deleted for certain."""

    def put(self, item: T) -> None:
        """Adds or updates an object, unless the stored version is newer or it was removed in a later one."""
        removed_at = self._tombstones.get(item.uid)
        if removed_at is not None:
            if not newer(item.resource_version, removed_at):
                return
            del self._tombstones[item.uid]  # for a while it did not match the selector
        super().put(item)

    def remove(self, uid: str, version: str) -> None:
        """Removes an object as of `version`; for good if that is empty.

        A watch with a selector sends the same event for a deleted object and for one that no longer matches. Only the
        latter returns, in a later version.
        """
        self._tombstones[uid] = version
        self._tombstones.move_to_end(uid)
        while len(self._tombstones) > _MAX_TOMBSTONES:
            self._tombstones.popitem(last=False)
        self._pop(uid)


class Named(Stored, Protocol):
    """A cluster-scoped object."""

    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=Named)


class NamedStore(TombstoneStore[N]):
    """Objects by uid and by name. Of two with one name, where a deletion is not reported yet, the newer one counts."""

    def __init__(self, decode: Callable[[Json], N | None], changed: Callable[[], None]) -> None:
        super().__init__(decode, changed)
        self.by_name: dict[str, N] = {}
        self._same_name: dict[str, set[str]] = {}
        """Name -> uids, of names that several objects have had."""

    def on_replace(self, old: N | None, new: N | None) -> None:
        if new is not None:
            current = self.by_name.get(new.name)
            if current is not None and current.uid != new.uid:
                self._same_name.setdefault(new.name, set()).update((current.uid, new.uid))
                if not newer(new.resource_version, current.resource_version):
                    return
            self.by_name[new.name] = new
        elif old is not None and self.by_name[old.name].uid == old.uid:
            del self.by_name[old.name]
            others = (self.items[uid] for uid in self._same_name.get(old.name, ()) if uid in self.items)
            for other in others:
                current = self.by_name.get(other.name)
                if current is None or newer(other.resource_version, current.resource_version):
                    self.by_name[other.name] = other


class SelectorStore(Store[T]):
    """A store without tombstones, for objects that stop matching a selector and may match again later."""

    def remove(self, uid: str, version: str) -> None:
        """Removes an object, unless the stored version is newer than `version`."""
        old = self.items.get(uid)
        if old is not None and not newer(old.resource_version, version):
            self._pop(uid)


def identity(body: Json) -> tuple[str, str]:
    """Returns uid and resource version of an object of the API."""
    meta = body["metadata"]
    return str(meta["uid"]), str(meta.get("resourceVersion", ""))


def newer(one: str, other: str) -> bool:
    """Returns whether resource version `one` is later; False if either is unknown. Both are numbers of one cluster."""
    return one.isdigit() and other.isdigit() and int(one) > int(other)


def _differ(old: Any, new: Any) -> bool:
    kind: type = type(new)
    compared = _compared(kind)
    return bool(compared(old) != compared(new))


@cache
def _compared(kind: type) -> Callable[[Any], Any]:
    """Returns a function that returns the fields by which stored forms are compared: all but the version."""
    return attrgetter(*(field.name for field in fields(kind) if field.compare and field.name != "resource_version"))
