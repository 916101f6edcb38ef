"""Synthetic jobs whose use is difficult for own use and moves, and jobs of templates, on shared GPUs.

Arrivals, promises, lifetimes and compute are those of `shared_use.synthetic`. Except where stated, a job uses 80 to
100 % of its promise, so that only the difficulty itself runs a device out of memory.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import numpy as np

from gpufleet_operator.placement.model import Share
from sharing.shared_use import GIB, STEP_SECONDS, TOTAL_MIB, Draws, Job, Use, synthetic


class Level(NamedTuple):
    """Memory of a job as a multiple of its promise, and its template."""

    use: Use
    template: str = ""


DrawLevel: TypeAlias = Callable[[Job, random.Random, int], Level]
"""The number is that of the run's steps."""

_HOUR = 3600 // STEP_SECONDS
_TEMPLATES = 9
"""For each amount of promised memory."""
_UNDER_PROMISE_GIB, _REAL_GIB = 4, 24


def late(job: Job, draw: random.Random, steps: int) -> Level:  # noqa: ARG001 - as `DrawLevel`
    """Half of the jobs use 20 % of their promise for an hour and 95 % afterwards."""
    use = _honest(job, draw)
    if draw.random() < 0.5:
        use[:_HOUR], use[_HOUR:] = 0.2, 0.95
    return Level(use)


def leak(job: Job, draw: random.Random, steps: int) -> Level:  # noqa: ARG001 - as `DrawLevel`
    """Two in ten jobs grow by 15 % of their promise every ten minutes."""
    use = _honest(job, draw)
    growth = 0.15 * np.arange(len(use)) * STEP_SECONDS / 600
    return Level(use + growth.astype(np.float32) if draw.random() < 0.2 else use)


def templates(job: Job, draw: random.Random, steps: int) -> Level:
    """Each job is of one of 63 templates: nine for each amount of promised memory.

    Half of the templates use 80 to 100 % of the promise, 3 in 10 use 20 to 60 %, 2 in 10 use 120 to 250 %. The jobs of
    one template differ by up to 10 %.
    """
    return _of_template(job, draw, swapped=False, half=steps / 2)


def change(job: Job, draw: random.Random, steps: int) -> Level:
    """As `templates`; those that use little and those that use much are swapped at half time."""
    return _of_template(job, draw, swapped=True, half=steps / 2)


def _of_template(job: Job, draw: random.Random, *, swapped: bool, half: float) -> Level:
    name = f"promises-{job.share.memory_mib}-{draw.randrange(_TEMPLATES)}"
    template = random.Random(name)
    kind, little, much = template.random(), template.uniform(0.2, 0.6), template.uniform(1.2, 2.5)
    first, second = (0.9, 0.9) if kind < 0.5 else (little, much) if kind < 0.8 else (much, little)
    level = second if swapped and job.start >= half else first
    return Level(np.full(len(job.memory), draw.uniform(0.9, 1.1) * level, np.float32), name)


def _honest(job: Job, draw: random.Random) -> Use:
    return np.full(len(job.memory), draw.uniform(0.8, 1.0), np.float32)


_LEVELS: Mapping[str, DrawLevel] = MappingProxyType(
    {"late": late, "leak": leak, "change": change, "templates": templates}
)


def _draw(level: DrawLevel, seed: int, *, devices: int, steps: int, load: float) -> list[Job]:
    draw = random.Random(seed)
    jobs = synthetic(seed, devices=devices, steps=steps, load=load)
    levels = [level(job, draw, steps) for job in jobs]
    return [
        replace(
            job,
            memory=np.minimum(TOTAL_MIB, job.share.memory_mib * found.use).astype(np.float32),
            template=found.template,
        )
        for job, found in zip(jobs, levels, strict=True)
    ]


def under_promise(seed: int, *, devices: int, steps: int, load: float) -> list[Job]:
    """Two in ten jobs promise 4 GiB and use 24."""
    jobs, draw = _draw(_honest_level, seed, devices=devices, steps=steps, load=load), random.Random(seed)
    return [_cheating(job) if draw.random() < 0.2 else job for job in jobs]


def _honest_level(job: Job, draw: random.Random, steps: int) -> Level:  # noqa: ARG001 - as `DrawLevel`
    return Level(_honest(job, draw))


def _cheating(job: Job) -> Job:
    share = Share(_UNDER_PROMISE_GIB * GIB, job.share.compute_percent)
    return replace(job, share=share, memory=np.full(len(job.memory), _REAL_GIB * GIB, np.float32))


def difficult(*, devices: int, steps: int, load: float) -> Draws:
    """Returns the draws of all difficulties by name."""
    found: Draws = {
        name: (partial(_draw, level, devices=devices, steps=steps, load=load), steps) for name, level in _LEVELS.items()
    }
    found["under-promise"] = (partial(under_promise, devices=devices, steps=steps, load=load), steps)
    return found
