"""Asks every kubelet all the time who has which device, and keeps what must never be: one device in two hands."""

from collections import defaultdict
from collections.abc import Mapping
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Self

from proof import EvidenceError, Holding, Witness

EVERY_SECONDS = 0.5


class Watchdog:
    """A thread of its own, from `with` to its end. A kubelet that a test has stopped is asked again later."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._stop = Event()
        self._lock = Lock()
        self._found: list[str] = []
        self._looks = 0
        self._thread = Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def check(self) -> int:
        """Fail when a device was ever seen in two hands; else how often all kubelets were asked since last time."""
        with self._lock:
            found, self._found = self._found, []
            looks, self._looks = self._looks, 0
        assert not found, "; ".join(found)
        return looks

    def _watch(self) -> None:
        while not self._stop.wait(EVERY_SECONDS):
            try:
                twice = double_holders(self._witness.holdings())
            except EvidenceError:
                continue
            with self._lock:
                self._looks += 1
                self._found += [f"{uuid} was held by {' and '.join(who)}" for uuid, who in twice.items()]


def double_holders(holdings: tuple[Holding, ...]) -> Mapping[str, list[str]]:
    """The devices that more than one container has, and who they are."""
    holders: defaultdict[str, list[str]] = defaultdict(list)
    for holding in holdings:
        for uuid in holding.devices:
            holders[uuid].append(f"{holding.namespace}/{holding.pod}/{holding.container}")
    return {uuid: who for uuid, who in holders.items() if len(who) > 1}
