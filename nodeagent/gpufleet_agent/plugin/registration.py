"""Decides when to serve and when to register, from the sockets present in the kubelet's directory. Pure.

The kubelet deletes every socket in the directory when it starts, the plugin's included, and creates its own. Looking at
what is there, instead of following events, makes the order of events irrelevant: a kubelet that starts during a
registration shows as a kubelet.sock other than the one that was dialed.
"""

from dataclasses import dataclass
from enum import Enum, auto

from gpufleet_agent.proto.socket_server import SocketId


@dataclass(frozen=True, slots=True)
class RegistrationState:
    """What the plugin did last."""

    bound: SocketId | None = None
    """The plugin's socket as it was created; None: not serving."""
    registered_with: SocketId | None = None
    """kubelet.sock as it was before the last successful registration; None: not registered."""
    unwatched_since: float | None = None
    """When the last ListAndWatch stream ended, or the last registration without one; None: a stream is open."""
    unwatched_registrations: int = 0
    """Registrations since the last open stream."""


class RegistrationStep(Enum):
    """What to do next."""

    WAIT = auto()
    BIND = auto()
    """Serve on a new socket."""
    REGISTER = auto()


WATCH_TIMEOUT_SECONDS = 2.0
"""Time for the kubelet to open its stream. It doubles with each registration that led to no stream."""

MAX_DOUBLINGS = 5
"""Limits that time to about a minute. Another plugin may compete for the same resource name."""


def next_step(
    state: RegistrationState,
    *,
    wanted: bool,
    ours: SocketId | None,
    kubelet: SocketId | None,
    now: float,
    watch_timeout_seconds: float = WATCH_TIMEOUT_SECONDS,
) -> RegistrationStep:
    """Returns what to do next.

    Args:
        state: What the plugin did last.
        wanted: Whether there is a device to advertise. A plugin that serves continues without one.
        ours: Socket at the plugin's path now.
        kubelet: Socket at the kubelet's path now.
        now: Time by the clock of `state.unwatched_since`, in seconds.
        watch_timeout_seconds: Time for the kubelet to open its stream.
    """
    if state.bound is None and not wanted:
        return RegistrationStep.WAIT
    if state.bound is None or ours is None or ours.file != state.bound.file:
        return RegistrationStep.BIND
    if kubelet is None:
        return RegistrationStep.WAIT
    if kubelet != state.registered_with:
        return RegistrationStep.REGISTER
    # The kubelet never dials again by itself. And when an old connection ends just after a new registration, it closes
    # the new one, because it looks up its clients by resource name.
    patience = watch_timeout_seconds * 2 ** min(state.unwatched_registrations, MAX_DOUBLINGS)
    if state.unwatched_since is not None and now - state.unwatched_since >= patience:
        return RegistrationStep.REGISTER
    return RegistrationStep.WAIT


def socket_name(resource: str) -> str:
    """Returns the file name of the plugin's socket for a resource, such as `gpufleet.dev_gpu.sock`."""
    return f"{resource.replace('/', '_')}.sock"
