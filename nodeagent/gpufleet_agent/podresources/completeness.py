"""Detects whether a PodResources list contains every pod: a kubelet that has just started does not know all yet.

It serves PodResources immediately, from the pods that it knows. Those of the apiserver arrive once it is reached, which
may never happen, and then one after the other, oldest first. Until the last one has arrived, a list lacks running pods,
and a device that it shows as free may be held. What the list does contain is always correct.

The agent's own pod shows that pods of the apiserver have begun to arrive; some time later all of them are there.
"""

import time
from collections.abc import Callable
from pathlib import Path

import structlog

from gpufleet_agent.podresources.listing import Listing

log = structlog.get_logger(__name__)

SETTLE_SECONDS = 10.0
"""From the first list with the agent's pod to the last pod of the same batch, each of which takes milliseconds."""


class CompletenessCheck:
    """Checks lists in the order in which they were made.

    Args:
        socket: The kubelet's socket, which it recreates when it starts.
        own_pod: Namespace and name of the agent's pod; None: it runs outside of Kubernetes, so only time decides.
        clock: The node's clock, which also stamps the socket.
    """

    def __init__(
        self, socket: Path, own_pod: tuple[str, str] | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._socket = socket
        self._own_pod = own_pod
        self._clock = clock
        self._kubelet: tuple[int, int] | None = None
        self._since: float | None = None
        """Loop time of this kubelet's first list that may be complete."""
        self._settled = False
        self.problem: str | None = "no PodResources list received yet"
        """Why the last list was not complete; None: it was."""

    def check(self, listing: Listing, now: float) -> bool:
        """Returns whether a list that was just received contains every pod that holds a device.

        Args:
            listing: The list.
            now: Loop time.
        """
        problem = self._find_problem(listing, now)
        if problem is not None and problem != self.problem:
            log.info("ignoring incomplete PodResources list", reason=problem)
        self.problem = problem
        return problem is None

    def _find_problem(self, listing: Listing, now: float) -> str | None:
        try:
            # After the response: a kubelet that started during the call may have sent it.
            stat = self._socket.stat()
        except OSError as error:
            return f"stat of the kubelet's socket failed: {error.strerror}"
        kubelet = stat.st_ino, stat.st_mtime_ns
        if kubelet != self._kubelet:
            # Only the first kubelet that this process sees may have been running for long.
            first, self._kubelet = self._kubelet is None, kubelet
            self._since = None
            self._settled = first and self._clock() - stat.st_mtime >= SETTLE_SECONDS
        if self._own_pod is not None and not any((one.key.namespace, one.key.pod) == self._own_pod for one in listing):
            self._since = None
            return f"list lacks the agent's pod {'/'.join(self._own_pod)}: the kubelet has no pods of the apiserver yet"
        if self._since is None:
            self._since = now
        self._settled = self._settled or now - self._since >= SETTLE_SECONDS
        return None if self._settled else f"the kubelet has had its pods for less than {SETTLE_SECONDS:g} s"
