"""Streams of likely pods: what the worth of a node is measured with.

Pods that need several devices are not among them: see Slots for what is done for those.

Every stream is a fair sample of the mix: its pods come one from each of equal parts of it, in an order that looks
random and is always the same. Fair streams tell good from bad with far fewer of them than random ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.packing.mix import Mix, PodType

SAMPLES = 64
ARRIVALS = 20

MIB = 2**20

_MOST_CPU, _MOST_MEMORY = 2**50, 2**36
"""Millicores and MiB that a pod counts for at most: far above what any node has, and a stream's sum stays below 2**63,
also in bytes."""

_NOTHING = PodType(0, 0, 0)


@dataclass(frozen=True, slots=True)
class ArrivalSamples:
    """(length, streams) each: pod by pod what is offered, and (length, streams, models) who may take it."""

    cpu: NDArray[np.int64]
    memory: NDArray[np.int64]
    """MiB, rounded up."""
    milli: NDArray[np.int64]
    """0: a pod without devices."""
    accepted: NDArray[np.bool_]
    """By class of models, see `classes`."""
    classes: dict[str, int]
    """Model -> class: models that the same types accept are one class. Class 0: every model not named."""


def sample_arrivals(mix: Mix) -> ArrivalSamples:
    """The streams of a mix; pods that take nothing when it holds none that needs one device or none."""
    everything, parts = (*mix.types, _NOTHING), (*mix.parts, 1.0)
    # Models that only pods of several devices name are classes of their own, too: `Slots` goes by them.
    classes, accepted = _classes(everything)
    rows = [row for row, t in enumerate(mix.types) if t.devices <= 1] or [len(mix.types)]
    types, accepted = [everything[row] for row in rows], accepted[rows]
    order = _positions([parts[row] for row in rows])
    cpu = np.array([min(t.cpu_milli, _MOST_CPU) for t in types], np.int64)
    memory = np.array([min(-(-t.memory_bytes // MIB), _MOST_MEMORY) for t in types], np.int64)
    milli = np.array([t.milli if t.devices else 0 for t in types], np.int64)
    return ArrivalSamples(cpu[order], memory[order], milli[order], accepted[order], classes)


def _positions(parts: Sequence[float]) -> NDArray[np.intp]:
    """(length, streams): which type is offered when.

    Pod `part` of stream s is the type at (part + offset(s)) / LENGTH of the mix, offsets filling 0..1 evenly; the
    parts of each stream come in an order of their own.
    """
    bounds = np.cumsum(np.array(parts))
    offsets = (np.arange(SAMPLES) + 0.5) / SAMPLES
    order = np.argsort(_scrambled(np.arange(ARRIVALS)[:, None] * SAMPLES + np.arange(SAMPLES)[None, :]), axis=0)
    points = (order + offsets[None, :]) / ARRIVALS * bounds[-1]
    found: NDArray[np.intp] = np.minimum(np.searchsorted(bounds, points, side="right"), len(bounds) - 1)
    return found


def _scrambled(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A fixed, well mixed 64-bit value for each number (the finalizer of splitmix64)."""
    with np.errstate(over="ignore"):
        z = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def _classes(types: Sequence[PodType]) -> tuple[dict[str, int], NDArray[np.bool_]]:
    """Model -> class, and (types, classes): who accepts whom."""
    named = sorted({model for t in types for model in t.models})
    columns = [tuple(not t.models for t in types)]
    classes = {}
    for model in named:
        column = tuple(not t.models or model in t.models for t in types)
        if column not in columns:
            columns.append(column)
        classes[model] = columns.index(column)
    return classes, np.array(columns, np.bool_).T
