"""Looks all the time at who has which device, and keeps what must never be: one device in two hands."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Self

from gpufleet_e2e.proof import EvidenceError, Holding, objects
from gpufleet_e2e.proof.contract import VISIBLE_DEVICES

Holders = Mapping[str, list[str]]
"""Device, or slot of a shared one (`<uuid>::<number>`) -> who has it."""


class Watchdog:
    """A thread of its own, from `with` to its end.

    Args:
        look: Who has which device now. EvidenceError when it can't be told (a test has stopped the kubelet, say): it is
            asked again later.
        every_seconds: Time between two looks.
    """

    def __init__(self, look: Callable[[], Holders], *, every_seconds: float) -> None:
        self._look = look
        self._every_seconds = every_seconds
        self._stop = Event()
        self._lock = Lock()
        self._found: list[str] = []
        self._looks = 0
        self.most = 0
        """The most devices that were in use at once."""
        self._thread = Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def check(self) -> int:
        """Fail when a device was ever seen in two hands; else how many looks were taken since last time."""
        assert self._thread.is_alive(), "nobody watches"
        with self._lock:
            found, self._found = self._found, []
            looks, self._looks = self._looks, 0
        assert not found, "; ".join(found)
        return looks

    def _watch(self) -> None:
        while not self._stop.wait(self._every_seconds):
            try:
                seen = self._look()
            except EvidenceError:
                continue
            with self._lock:
                self._looks += 1
                self.most = max(self.most, len(seen))
                self._found += [f"{uuid} was held by {' and '.join(who)}" for uuid, who in twice(seen).items()]


def by_kubelets(holdings: Iterable[Holding]) -> Holders:
    """Who has which device, say the kubelets."""
    holders: defaultdict[str, list[str]] = defaultdict(list)
    for holding in holdings:
        for uuid in holding.devices:
            holders[uuid].append(f"{holding.namespace}/{holding.pod}/{holding.container}")
    return holders


def by_processes(pods: str, proc: Path = Path("/proc")) -> Holders:
    """Pods whose processes live on this machine with a device in their environment, whatever any kubelet says.

    Args:
        pods: How the pods' names begin: other clusters may run here, too, with devices of the same names.
        proc: Where the processes are.
    """
    holders: defaultdict[str, set[str]] = defaultdict(set)
    for process in proc.iterdir():
        if not process.name.isdigit():
            continue
        try:
            raw = (process / "environ").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # it has ended
        variables = objects.environment(raw)
        pod = variables.get("HOSTNAME", "")
        if pod.startswith(pods):
            for uuid in filter(None, variables.get(VISIBLE_DEVICES, "").split(",")):
                holders[uuid].add(pod)
    return {uuid: sorted(who) for uuid, who in holders.items()}


def twice(holders: Holders) -> Holders:
    """The devices and slots that are in more than one hand; a device that is held as a whole has no slots to give."""
    found = {device_id: who for device_id, who in holders.items() if len(who) > 1}
    for device_id, who in holders.items():
        uuid = objects.device_of(device_id)
        if uuid != device_id and uuid in holders:
            found[uuid] = [*found.get(uuid, holders[uuid]), *who]
    return found
