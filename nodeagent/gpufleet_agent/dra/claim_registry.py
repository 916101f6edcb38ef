"""Keeps the claims that have devices of this node, or may still have them."""

from collections import deque
from collections.abc import Iterable

from gpufleet_agent.dra.prepared_claim import PreparedClaim

MAX_REMEMBERED = 1024


class ClaimRegistry:
    """Prepared claims, and those that were unprepared while a process of their pods may run.

    For use from one event loop. The files of the claims are the durable form.
    """

    def __init__(self) -> None:
        self._prepared: dict[str, PreparedClaim] = {}
        self._ended: dict[str, PreparedClaim] = {}
        self._unprepared: deque[str] = deque(maxlen=MAX_REMEMBERED)
        """UIDs of claims that were unprepared last. A claim never becomes prepared again after that."""

    @property
    def prepared(self) -> tuple[PreparedClaim, ...]:
        return tuple(self._prepared.values())

    def get(self, uid: str) -> PreparedClaim | None:
        """Returns a prepared claim."""
        return self._prepared.get(uid)

    def others(self, uid: str) -> tuple[PreparedClaim, ...]:
        """Returns all other claims that have devices, or may have them."""
        return tuple(claim for claim in (*self._prepared.values(), *self._ended.values()) if claim.uid != uid)

    def has_ended(self, uid: str) -> bool:
        """Returns whether the kubelet has ended the claim's use."""
        return uid in self._ended or uid in self._unprepared

    def add(self, claim: PreparedClaim) -> None:
        self._prepared[claim.uid] = claim

    def load(self, claims: Iterable[PreparedClaim]) -> None:
        """Adds the claims that an earlier process prepared."""
        self._prepared.update((claim.uid, claim) for claim in claims)

    def end(self, uid: str, *, processes_may_run: bool) -> None:
        """Records that the kubelet has ended the claim's use."""
        claim = self._prepared.pop(uid, None)
        self._unprepared.append(uid)
        if claim is not None and processes_may_run:
            self._ended[uid] = claim
            while len(self._ended) > MAX_REMEMBERED:
                del self._ended[next(iter(self._ended))]

    def forget_ended(self, uid: str) -> None:
        """Removes an unprepared claim without containers. A claim that was prepared again stays."""
        self._ended.pop(uid, None)

    def forget(self, uid: str) -> None:
        """Removes a claim whose containers are gone."""
        self._prepared.pop(uid, None)
        self._ended.pop(uid, None)
