"""When to serve and when to register: decided from what stands in the kubelet's directory, whatever led there.

The kubelet deletes every socket in the directory when it starts, ours included, and makes its own anew. Looking at
what is there, instead of following events, makes the order of events not matter: a kubelet that starts in the middle
of our registration shows as a kubelet.sock other than the one that we dialled.
"""

import stat
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SocketId:
    """Tells one socket file from a later one of the same name; inode numbers alone are used again."""

    device: int
    inode: int
    ctime_ns: int


def identify(path: Path) -> SocketId | None:
    """Which socket stands at `path`; None when there is none."""
    try:
        status = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    return SocketId(status.st_dev, status.st_ino, status.st_ctime_ns) if stat.S_ISSOCK(status.st_mode) else None


@dataclass(frozen=True, slots=True)
class RegistrationState:
    """What we did last."""

    bound: SocketId | None = None
    """Our socket as we made it; None: not serving."""
    registered_with: SocketId | None = None
    """kubelet.sock as it was before the last successful registration; None: not registered."""
    unheard_since: float | None = None
    """When the last listener hung up, or when we registered without one turning up; None: somebody listens."""
    unheard_registrations: int = 0
    """Registrations since anybody listened."""


class RegistrationStep(Enum):
    """What to do next."""

    WAIT = auto()
    BIND = auto()
    """Serve anew, on a new socket."""
    REGISTER = auto()


UNHEARD_SECONDS = 2.0
"""How long the kubelet may take to open its stream; twice that after each registration that brought no listener."""

MAX_DOUBLINGS = 5
"""So at most about a minute. Another plugin may be fighting for the same resource name."""


def next_step(
    standing: RegistrationState,
    *,
    wanted: bool,
    ours: SocketId | None,
    kubelet: SocketId | None,
    now: float,
    unheard_seconds: float = UNHEARD_SECONDS,
) -> RegistrationStep:
    """Decide.

    Args:
        standing: What we did last.
        wanted: Whether there is any device to advertise. Once serving, the plugin goes on.
        ours: What stands at our own socket's path now.
        kubelet: What stands at the kubelet's socket's path now.
        now: By the clock of `standing.unheard_since`.
        unheard_seconds: How long the kubelet may take to open its stream.
    """
    if standing.bound is None and not wanted:
        return RegistrationStep.WAIT
    if standing.bound is None or ours is None or (ours.device, ours.inode) != _file(standing.bound):
        return RegistrationStep.BIND
    if kubelet is None:
        return RegistrationStep.WAIT
    if kubelet != standing.registered_with:
        return RegistrationStep.REGISTER
    # The kubelet never dials again by itself. And when an old connection of ours ends just after a new registration,
    # it hangs up on the new one, for it looks its clients up by resource name.
    patience = unheard_seconds * 2 ** min(standing.unheard_registrations, MAX_DOUBLINGS)
    if standing.unheard_since is not None and now - standing.unheard_since >= patience:
        return RegistrationStep.REGISTER
    return RegistrationStep.WAIT


def socket_name(resource: str) -> str:
    """File name of the plugin's socket for a resource, such as `gpufleet.dev_gpu.sock`."""
    return f"{resource.replace('/', '_')}.sock"


def _file(socket: SocketId) -> tuple[int, int]:
    # A relabelled or touched socket of ours is still ours.
    return socket.device, socket.inode
