"""Excludes nodes that rejected pods of several workloads: no workload gets devices there for a while.

Otherwise each new workload would be rejected there once, because the idle node has the highest score.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from gpufleet_operator.model.state_types import RejectionOnNode

WORKLOADS = 3
"""Rejected workloads after which a node is excluded."""
WINDOW = timedelta(minutes=10)
"""How long a rejection counts."""
_FIRST_PAUSE = timedelta(seconds=15)
_MAX_PAUSE = timedelta(minutes=10)
_MAX_COUNTED = 16

Rejected = Mapping[str, Sequence[RejectionOnNode]]
"""The rejections of each node, oldest first."""


def until(found: Sequence[RejectionOnNode]) -> datetime | None:
    """Returns the end of a node's exclusion, which may be in the past; None: it is not excluded."""
    if len({rejection.workload_uid for rejection in found}) < WORKLOADS:
        return None
    factor: int = 2 ** (len(found) - WORKLOADS)
    return found[-1].at + min(_MAX_PAUSE, _FIRST_PAUSE * factor)


def active(rejected: Rejected, now: datetime) -> dict[str, datetime]:
    """Returns the excluded nodes, and the end of their exclusion."""
    return {node: end for node, end in _ends(rejected) if now < end}


def ended(rejected: Rejected, now: datetime) -> frozenset[str]:
    """Returns the nodes whose exclusion has ended."""
    return frozenset(node for node, end in _ends(rejected) if end <= now)


def kept(rejected: Rejected, now: datetime) -> dict[str, tuple[RejectionOnNode, ...]]:
    """Returns the rejections that still count."""
    found: dict[str, tuple[RejectionOnNode, ...]] = {}
    for node, rejections in rejected.items():
        end = until(rejections)
        if end is not None and now < end + WINDOW:
            found[node] = tuple(rejections)
        elif recent := tuple(r for r in rejections if now - r.at < WINDOW):
            found[node] = recent
    return found


def with_rejection(rejected: Rejected, node: str, added: RejectionOnNode) -> dict[str, tuple[RejectionOnNode, ...]]:
    """Returns the rejections with one more."""
    mine = sorted((*rejected.get(node, ()), added), key=lambda r: (r.at, r.workload_uid))
    return {**{name: tuple(found) for name, found in rejected.items()}, node: tuple(mine[-_MAX_COUNTED:])}


def message(found: Sequence[RejectionOnNode], end: datetime) -> str:
    """Returns why the node is excluded."""
    workloads = len({rejection.workload_uid for rejection in found})
    return (
        f"pods of {workloads} workloads were rejected, the last one with: {found[-1].message}; "
        f"no devices are picked on the node until {end:%Y-%m-%d %H:%M:%S} UTC"
    )


def _ends(rejected: Rejected) -> Iterator[tuple[str, datetime]]:
    for node, found in rejected.items():
        end = until(found)
        if end is not None:
            yield node, end
