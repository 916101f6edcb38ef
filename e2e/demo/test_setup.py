"""The demo on a cluster that runs already, as `make demo` for the second time."""

import io

import pytest

from gpufleet_e2e.demo import setup
from gpufleet_e2e.demo.context import DemoContext
from gpufleet_e2e.demo.terminal import Terminal, make_console
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.sandbox import TestNamespace
from gpufleet_testbed import ConflictError


def test_workloads_of_the_user_are_named_and_kept(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: kubectl lists the workloads of other namespaces; the demo deletes none of them."""
    namespace.apply(gpuworkload("first", suspend=True), gpuworkload("second", suspend=True))
    terminal = Terminal(make_console(io.StringIO(), {}), 1)
    context = DemoContext(fleet.cluster, fleet.collector, terminal, timeout_seconds=30)
    with pytest.raises(ConflictError) as conflict:
        setup.remove_earlier_demo(context)
    for name in ("first", "second"):
        assert f"  kubectl delete gpuworkload --namespace={namespace.name} {name}\n" in f"{conflict.value}\n"
        assert namespace.workload(name)
