"""The fleet as arrays: one row per node, one column per device in index order.

An update of a node changes its row in place. Measurements are integers in the model's units. An unreported measurement
is stored as the worst value, so that every limit on it fails. Score terms are integers in millionths, so that sums are
exact and equal devices tie.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.fleet.terms import TERMS

Ints: TypeAlias = NDArray[np.signedinteger[Any]]
Int64s: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]
Rows: TypeAlias = slice | NDArray[np.intp]
"""Selects rows."""

_T = TypeVar("_T", bound=np.generic)

UNKNOWN = -1
"""A total, a compute capability or a NUMA node that isn't reported."""
UNKNOWN_USED_MIB = 2**30
"""Memory in use that isn't reported."""
UNKNOWN_PERCENT = 2**14
UNKNOWN_CELSIUS = 2**14
UNLIMITED_SLOTS = 2**14
"""Free share slots of a device without a limit."""

PRESENT, SAMPLED, HEALTHY, HELD, SHARED, FOREIGN, CORDONED, EARMARKED = (1 << bit for bit in range(8))
"""State bits of a device."""
USABLE = PRESENT | SAMPLED | HEALTHY


@dataclass(slots=True)
class Columns:
    """All arrays; (rows, width) for devices, (rows,) for nodes."""

    state: NDArray[np.uint8]
    total_mib: NDArray[np.int32]
    """Without the memory that the driver reserves."""
    used_mib: NDArray[np.int32]
    """Effective: promised or observed, whichever is more, plus in flight."""
    compute: NDArray[np.int16]
    """Effective use in percent."""
    temperature: NDArray[np.int16]
    known: NDArray[np.uint8]
    """Which terms the hardware reports, as bits in their order."""
    capability: NDArray[np.int32]
    """major * 1000 + minor."""
    model: NDArray[np.int16]
    """Index into the fleet's list of models."""
    numa: NDArray[np.int16]
    promised_mib: NDArray[np.int32]
    """All shares of the device, in flight or not, without what is reclaimed of them."""
    promised_compute: NDArray[np.int16]
    share_slots: NDArray[np.int16]
    """How many more containers may share the device."""
    free_milli: NDArray[np.int16]
    """Thousandths of the device that are not promised: 1000 if idle, 0 if held as a whole or unusable."""
    terms: NDArray[np.int32]
    """(rows, width, 4): memory, utilization, temperature, power of the score, in millionths."""

    fresh: NDArray[np.bool_]
    """The row has a node with usable telemetry."""
    stale: NDArray[np.bool_]
    """The row has a node with stale telemetry."""
    plain: NDArray[np.bool_]
    """Schedulable and without a taint that prevents scheduling: tolerations need no check."""
    cpu: NDArray[np.int64]
    memory: NDArray[np.int64]
    pods: NDArray[np.int64]
    link_graph: NDArray[np.int32]
    """Index into the fleet's list of NVLink patterns."""
    rank: NDArray[np.int64]
    """Position of the node's name among all names: decides ties."""
    extended: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    """Free extended resources by name; no node has a resource that is missing here."""

    @classmethod
    def empty(cls, rows: int, width: int) -> "Columns":
        """Returns arrays without nodes."""
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(_DTYPES, (rows,)) | dict.fromkeys(_PER_DEVICE, (rows, width))
        shapes["terms"] = (rows, width, TERMS)
        arrays: dict[str, Any] = {name: np.zeros(shapes[name], dtype) for name, dtype in _DTYPES.items()}
        return cls(**arrays)

    @property
    def rows(self) -> int:
        """Allocated rows."""
        return int(self.cpu.shape[0])

    @property
    def width(self) -> int:
        """Allocated devices per node."""
        return int(self.state.shape[1])

    @property
    def nbytes(self) -> int:
        """Memory of all arrays."""
        own = sum(int(getattr(self, name).nbytes) for name in _DTYPES)
        return own + sum(free.nbytes for free in self.extended.values())

    def resized(self, rows: int, width: int) -> "Columns":
        """Returns a larger copy."""
        other = Columns.empty(rows, width)
        for name in _DTYPES:
            mine, theirs = getattr(self, name), getattr(other, name)
            theirs[tuple(slice(n) for n in mine.shape)] = mine
        for name, free in self.extended.items():
            other.extended[name] = np.zeros(rows, np.int64)
            other.extended[name][: len(free)] = free
        return other

    def map(self, function: Callable[[NDArray[Any]], NDArray[Any]]) -> "Columns":
        """Returns a copy with `function` applied to each array."""
        extended = {name: function(free) for name, free in self.extended.items()}
        return Columns(**{name: function(getattr(self, name)) for name in _DTYPES}, extended=extended)


_PER_DEVICE = frozenset(
    (
        "state",
        "total_mib",
        "used_mib",
        "compute",
        "temperature",
        "known",
        "capability",
        "model",
        "numa",
        "promised_mib",
        "promised_compute",
        "share_slots",
        "free_milli",
        "terms",
    )
)
_DTYPES: dict[str, type[np.generic]] = {
    "state": np.uint8,
    "total_mib": np.int32,
    "used_mib": np.int32,
    "compute": np.int16,
    "temperature": np.int16,
    "known": np.uint8,
    "capability": np.int32,
    "model": np.int16,
    "numa": np.int16,
    "promised_mib": np.int32,
    "promised_compute": np.int16,
    "share_slots": np.int16,
    "free_milli": np.int16,
    "terms": np.int32,
    "fresh": np.bool_,
    "stale": np.bool_,
    "plain": np.bool_,
    "cpu": np.int64,
    "memory": np.int64,
    "pods": np.int64,
    "link_graph": np.int32,
    "rank": np.int64,
}


def count_true(mask: Mask) -> NDArray[np.float32]:
    """Returns (rows,): the number of True values per row; much faster than a sum over such a short axis."""
    # OpenBLAS sometimes sets the flag of an invalid operation although all numbers are finite (numpy issue 24067).
    with np.errstate(invalid="ignore"):
        counts: NDArray[np.float32] = mask.astype(np.float32) @ _ones(mask.shape[1])
    return counts


@lru_cache(maxsize=8)
def _ones(width: int) -> NDArray[np.float32]:
    return np.ones(width, np.float32)


@dataclass(slots=True)
class RowWindow:
    """Some rows: their position in `columns` and their row in the fleet. Immutable.

    Both are equal except in a tentative placement, which has its own copy of a row with debits unknown to the fleet.
    """

    columns: Columns
    at: Rows
    origin: Rows

    @classmethod
    def of(cls, columns: Columns, at: Rows) -> "RowWindow":
        """Rows of the fleet as it is."""
        return cls(columns, at, at)

    @classmethod
    def row(cls, columns: Columns, row: int) -> "RowWindow":
        """One row of the fleet as it is."""
        return cls.of(columns, slice(row, row + 1))

    @property
    def origin_row(self) -> int:
        """Row of the fleet of a window with one row."""
        if not isinstance(self.origin, slice):
            raise TypeError(f"expected a window of one row, got {len(self.origin)} rows")
        return int(self.origin.start)

    def take_rows(self, array: NDArray[_T]) -> NDArray[_T]:
        """Returns these rows of an array; do not modify them."""
        at = self.at
        # take() needs half the time of indexing, and this runs a dozen times in each decision.
        return array[at] if isinstance(at, slice) else array.take(at, axis=0)

    @property
    def single(self) -> int | None:
        """The row in `columns` when there is just one, given as a slice."""
        at = self.at
        return at.start if isinstance(at, slice) and at.stop is not None and at.stop - at.start == 1 else None
