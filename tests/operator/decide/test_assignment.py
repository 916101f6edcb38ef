"""The assignment names the container that gets the devices: the pod says which one, whatever the template says now."""

from gpufleet_operator.decide.assignment import new_assignment
from gpufleet_operator.model.objects import Pod
from gpufleet_operator.model.pod_state.containers import Container
from gpufleet_testing.operator import make, owned


def container(pod: Pod) -> str:
    workload = make.workload()  # of a template with the container `main`
    snapshot = make.snapshot(workload, pod)
    return new_assignment(snapshot, workload, 0, pod, devices=["GPU-1-0"], shard=None).container


def test_container_of_an_earlier_template_keeps_its_devices() -> None:
    """Statuses are sorted by name: the first one may be a container that a webhook has added."""
    statuses = (Container("a-proxy"), Container("app"))

    assert container(make.running_pod(containers=statuses, device_requests=owned.requests(container="app"))) == "app"


def test_container_of_a_renamed_resource_is_that_of_the_template() -> None:
    old = owned.requests(container="main", resource="acme.dev/gpu")

    assert container(make.running_pod(device_requests=old)) == "main"


def test_container_of_a_pod_without_requests_is_that_of_the_template() -> None:
    assert container(make.pod()) == "main"
