"""Workloads of the user on the demo's cluster are named and kept."""

from types import SimpleNamespace
from typing import Any

import pytest

from gpufleet_e2e.demo import setup
from gpufleet_testbed import ConflictError


def context_with(others: str, asked: list[tuple[str, ...]]) -> Any:
    def kubectl(*words: str) -> SimpleNamespace:
        asked.append(words)
        if "crd" in words:
            return SimpleNamespace(stdout=setup.CRD)
        return SimpleNamespace(stdout=others if "--all-namespaces" in words else "")

    return SimpleNamespace(cluster=SimpleNamespace(kubectl=kubectl), terminal=None)


def test_other_workloads_are_named_with_the_fix() -> None:
    asked: list[tuple[str, ...]] = []
    with pytest.raises(ConflictError, match="kubectl delete gpuworkload --namespace=default mine"):
        setup.remove_earlier_demo(context_with("default/mine\n", asked))
    assert not any("delete" in words for words in asked)


def test_cluster_without_workloads_is_not_changed() -> None:
    asked: list[tuple[str, ...]] = []
    setup.remove_earlier_demo(context_with("", asked))
    assert [words[0] for words in asked] == ["get", "get", "get"]


def test_no_argument_of_kubectl_contains_a_line_break() -> None:
    """kubectl rejects a line break inside a quoted string of a JSONPath template."""
    asked: list[tuple[str, ...]] = []
    setup.remove_earlier_demo(context_with("", asked))
    assert not [word for words in asked for word in words if "\n" in word]
