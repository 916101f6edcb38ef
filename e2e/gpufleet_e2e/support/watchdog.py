"""Polls the holders of all devices and records every device that had two of them."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Self

from gpufleet_e2e.proof import EvidenceError, Holding, objects
from gpufleet_e2e.proof.contract import VISIBLE_DEVICES

_POD_UID = re.compile(r"pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})")

Holders = Mapping[str, list[str]]
"""Device, or share slot of a device (`<uuid>::<number>`), to its holders."""


class Watchdog:
    """Polls in a thread while its `with` block runs.

    Args:
        look: Reads the holders of all devices. On EvidenceError, as when a test has stopped the kubelet, it is called
            again later.
        every_seconds: Time between two reads.
    """

    def __init__(self, look: Callable[[], Holders], *, every_seconds: float) -> None:
        self._look = look
        self._every_seconds = every_seconds
        self._stop = Event()
        self._lock = Lock()
        self._found: list[str] = []
        self._reads = 0
        self.max_in_use = 0
        """Most devices in use at the same time."""
        self._thread = Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def check(self) -> int:
        """Fails when a device had two holders; else returns the number of reads since the last call."""
        assert self._thread.is_alive(), "the watchdog does not run"
        with self._lock:
            found, self._found = self._found, []
            reads, self._reads = self._reads, 0
        assert not found, "; ".join(found)
        return reads

    def _watch(self) -> None:
        while not self._stop.wait(self._every_seconds):
            try:
                seen = self._look()
            except EvidenceError:
                continue
            with self._lock:
                self._reads += 1
                self.max_in_use = max(self.max_in_use, len(seen))
                self._found += [
                    f"{uuid} was held by {' and '.join(who)}" for uuid, who in double_allocations(seen).items()
                ]


def holders_by_kubelets(holdings: Iterable[Holding]) -> Holders:
    """Groups holdings, as reported by the kubelets, by device."""
    holders: defaultdict[str, list[str]] = defaultdict(list)
    for uuid, holder in dict.fromkeys((uuid, holding.holder) for holding in holdings for uuid in holding.devices):
        holders[uuid].append(holder)
    return holders


def holders_by_processes(pods: str, proc: Path = Path("/proc")) -> Holders:
    """Finds pods with a process on this machine that has a device in its environment; asks no kubelet.

    Args:
        pods: Prefix of the pods' host names, because other clusters on this machine may have devices of the same names.
        proc: The proc file system.
    """
    holders: defaultdict[str, set[str]] = defaultdict(set)
    for process in proc.iterdir():
        if not process.name.isdigit():
            continue
        try:
            raw = (process / "environ").read_text(encoding="utf-8", errors="replace")
            cgroups = (process / "cgroup").read_text(encoding="utf-8")
        except OSError:
            continue  # it has ended
        variables = objects.environment(raw)
        pod = variables.get("HOSTNAME", "")
        if pod.startswith(pods):
            # A replacement has the host name of the pod that it replaces.
            uid = "".join(_POD_UID.findall(cgroups)[:1])
            for uuid in filter(None, variables.get(VISIBLE_DEVICES, "").split(",")):
                holders[uuid].add(f"{pod} ({uid})")
    return {uuid: sorted(who) for uuid, who in holders.items()}


def double_allocations(holders: Holders) -> Holders:
    """Returns devices and slots with more than one holder; a device that is held as a whole has no slots."""
    found = {device_id: who for device_id, who in holders.items() if len(who) > 1}
    for device_id, who in holders.items():
        uuid = objects.device_of(device_id)
        if uuid != device_id and uuid in holders:
            found[uuid] = [*found.get(uuid, holders[uuid]), *who]
    return found
