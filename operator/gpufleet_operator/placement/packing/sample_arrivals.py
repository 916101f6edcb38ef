"""Sample arrivals: sequences of pods drawn from the mix, used to measure fragmentation.

Pods that need several devices are excluded: `MultiGpuCapacity` protects those.

Each sample is stratified: one pod from each of ARRIVALS equal parts of the mix, in a fixed pseudo-random order.
Stratified samples need far fewer sequences than independent draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpufleet_common.units import BYTES_PER_MIB
from gpufleet_operator.placement.packing.mix import Mix, PodType

SAMPLES = 64
ARRIVALS = 20

_MAX_CPU_MILLI, _MAX_MEMORY_MIB = 2**50, 2**36
"""Upper bounds of a pod in millicores and MiB: above any node; the sum of a sample stays below 2**63 bytes."""

_NOTHING = PodType(0, 0, 0)


@dataclass(frozen=True, slots=True)
class ArrivalSamples:
    """Pods as arrays of (arrivals, samples), and accepted models as (arrivals, samples, classes)."""

    cpu: NDArray[np.int64]
    memory: NDArray[np.int64]
    """MiB, rounded up."""
    milli: NDArray[np.int64]
    """0: a pod without devices."""
    accepted: NDArray[np.bool_]
    """By class of model, see `classes`."""
    classes: dict[str, int]
    """Model -> class: models accepted by the same types form one class. Class 0: all other models."""


def sample_arrivals(mix: Mix) -> ArrivalSamples:
    """Returns the samples of a mix; empty pods if no type needs at most one device."""
    everything, parts = (*mix.types, _NOTHING), (*mix.parts, 1.0)
    # Models named only by multi-GPU pods form classes as well: `MultiGpuCapacity` uses them.
    classes, accepted = _classes(everything)
    rows = [row for row, t in enumerate(mix.types) if t.devices <= 1] or [len(mix.types)]
    types, accepted = [everything[row] for row in rows], accepted[rows]
    order = _positions([parts[row] for row in rows])
    cpu = np.array([min(t.cpu_milli, _MAX_CPU_MILLI) for t in types], np.int64)
    memory = np.array([min(-(-t.memory_bytes // BYTES_PER_MIB), _MAX_MEMORY_MIB) for t in types], np.int64)
    milli = np.array([t.milli if t.devices else 0 for t in types], np.int64)
    return ArrivalSamples(cpu[order], memory[order], milli[order], accepted[order], classes)


def _positions(parts: Sequence[float]) -> NDArray[np.intp]:
    """Returns (arrivals, samples): the type of each pod.

    Pod `part` of sample s is the type at (part + offset(s)) / ARRIVALS of the mix, with offsets evenly spaced in 0..1;
    each sample has its own order of parts.
    """
    bounds = np.cumsum(np.array(parts))
    offsets = (np.arange(SAMPLES) + 0.5) / SAMPLES
    order = np.argsort(_scrambled(np.arange(ARRIVALS)[:, None] * SAMPLES + np.arange(SAMPLES)[None, :]), axis=0)
    points = (order + offsets[None, :]) / ARRIVALS * bounds[-1]
    found: NDArray[np.intp] = np.minimum(np.searchsorted(bounds, points, side="right"), len(bounds) - 1)
    return found


def _scrambled(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Returns a fixed 64-bit hash of each number (the finalizer of splitmix64)."""
    with np.errstate(over="ignore"):
        z = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def _classes(types: Sequence[PodType]) -> tuple[dict[str, int], NDArray[np.bool_]]:
    """Returns model -> class, and (types, classes): whether the type accepts the class."""
    named = sorted({model for t in types for model in t.models})
    columns = [tuple(not t.models for t in types)]
    classes = {}
    for model in named:
        column = tuple(not t.models or model in t.models for t in types)
        if column not in columns:
            columns.append(column)
        classes[model] = columns.index(column)
    return classes, np.array(columns, np.bool_).T
