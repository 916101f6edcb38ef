"""Whether a list names everybody: a kubelet that has just started doesn't know all of its pods yet.

It serves PodResources at once, out of the pods that it has heard of. Those of the apiserver come when it is reached,
which may take for ever, and then one after the other, oldest first. Until the last one is in, a list lacks pods that
run, and a device that it says nobody holds may be held. What it does name is true at any time.

The agent's own pod tells when the pods of the apiserver have begun to come, and some time later they are all there.
"""

import time
from collections.abc import Callable
from pathlib import Path

import structlog

from gpufleet_agent.podresources.listing import Listing

log = structlog.get_logger(__name__)

SETTLE_SECONDS = 10.0
"""From the first list with our own pod to the last pod of the same batch: the kubelet takes milliseconds for each."""


class CompletenessCheck:
    """Judges lists in the order in which they come.

    Args:
        socket: The kubelet's, which it makes anew when it starts.
        own_pod: Namespace and name of the agent's pod; None: it runs in none, so only time tells.
        clock: Of the node, which stamps the socket, too.
    """

    def __init__(
        self, socket: Path, own_pod: tuple[str, str] | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._socket = socket
        self._own_pod = own_pod
        self._clock = clock
        self._kubelet: tuple[int, int] | None = None
        self._since: float | None = None
        """Loop time of the first list of this kubelet that could be complete."""
        self._settled = False
        self.problem: str | None = "the kubelet has not listed its pods' devices yet"
        """Why the last list was not complete; None: it was."""

    def judge(self, listing: Listing, now: float) -> bool:
        """Whether a list that has just come names every pod that holds something.

        Args:
            listing: The list.
            now: Loop time.
        """
        problem = self._judge(listing, now)
        if problem is not None and problem != self.problem:
            log.info("a list of the kubelet is not taken for complete", reason=problem)
        self.problem = problem
        return problem is None

    def _judge(self, listing: Listing, now: float) -> str | None:
        try:
            # After the answer: a kubelet that started meanwhile may have given it.
            stat = self._socket.stat()
        except OSError as error:
            return f"the kubelet's socket can't be looked at: {error.strerror}"
        kubelet = stat.st_ino, stat.st_mtime_ns
        if kubelet != self._kubelet:
            # The first one that this process meets may have been there for long.
            first, self._kubelet = self._kubelet is None, kubelet
            self._since = None
            self._settled = first and self._clock() - stat.st_mtime >= SETTLE_SECONDS
        if self._own_pod is not None and not any((one.key.namespace, one.key.pod) == self._own_pod for one in listing):
            self._since = None
            return f"it lacks the agent's own pod {'/'.join(self._own_pod)}: the kubelet doesn't know its pods yet"
        if self._since is None:
            self._since = now
        self._settled = self._settled or now - self._since >= SETTLE_SECONDS
        return None if self._settled else f"the kubelet knows its pods for less than {SETTLE_SECONDS:g} s"
