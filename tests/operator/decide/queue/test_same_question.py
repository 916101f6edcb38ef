"""Workloads that ask the same question, which no node can answer, share its explanation."""

from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.model.state_types import Limits
from gpufleet_operator.placement.explain import diagnosis
from gpufleet_operator.placement.model import Diagnosis
from gpufleet_operator.placement.search.query import Query
from gpufleet_operator.placement.search.tentative import TentativePlacement
from gpufleet_operator.runtime.metrics import Metrics
from gpufleet_operator.runtime.reconciler import Reconciler
from gpufleet_testing.operator.decisions import AppliedDecisions
from gpufleet_testing.operator.synthetic import SyntheticFleet

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
QUESTIONS = 10
"""Of the waiting workloads of a synthetic fleet."""


def test_waiting_workloads_with_the_same_request_are_explained_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet, cache = SyntheticFleet(3, 3, 4 * QUESTIONS, NOW), Cache()
    fleet.fill(cache)
    explained: list[Query] = []
    original = diagnosis._explain

    def counted(tentative: TentativePlacement, query: Query, *rest: Any) -> Diagnosis:
        explained.append(query)
        return original(tentative, query, *rest)

    monkeypatch.setattr(diagnosis, "_explain", counted)
    reconciler = Reconciler(
        cache,
        AppliedDecisions(fleet, cache),
        Limits(),
        ServerClock(lambda: NOW),
        Metrics(CollectorRegistry()),
        name_seed=lambda: "seed",
        resync_interval_seconds=3600,
    )

    actions = reconciler.decide_once()

    assert len(actions.unplaced) == 4 * QUESTIONS
    assert len(explained) == QUESTIONS
