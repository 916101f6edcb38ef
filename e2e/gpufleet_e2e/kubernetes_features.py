"""Features of Kubernetes that older versions lack; tests that need one are skipped there.

A test is marked with `@pytest.mark.kubernetes(FEATURE)`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from gpufleet_e2e.proof.contract import POD_STATUS_SINCE


@dataclass(frozen=True)
class Feature:
    """A feature that is on by default from a version on."""

    since: tuple[int, int]
    without: str
    """What clusters of earlier versions lack."""
    transport: str | None = None
    """The only transport that needs it; None: both."""


MUTATING_POLICIES = Feature(
    (1, 36),
    "MutatingAdmissionPolicy of admissionregistration.k8s.io/v1 is not served: "
    "the chart adds neither the gate nor the request to labeled pods",
)
SHARED_CLAIMS = Feature((1, 36), "DRAConsumableCapacity is off: a claim takes the whole device", transport="DRA")
DEVICE_TAINTS = Feature((1, 36), "DRADeviceTaints is off: the apiserver drops the taints of devices")
DEVICE_HEALTH = Feature(POD_STATUS_SINCE, "ResourceHealthStatus is off: the kubelet writes no allocatedResourcesStatus")
CLASS_RESOURCES = Feature((1, 36), "DRAExtendedResource is off: DeviceClasses have no resources")


def reason_to_skip(features: Iterable[Feature], kubernetes: str, transport: str | None = None) -> str | None:
    """Returns why a test that needs these features cannot run; None: it can.

    Args:
        features: What it needs.
        kubernetes: Minor version of the cluster, such as `1.36`.
        transport: The transport that it runs with; None: it depends on none, or needs DRA.
    """
    major, _, minor = kubernetes.partition(".")
    missing = (
        f"Kubernetes {kubernetes}: {feature.without}"
        for feature in features
        if (int(major), int(minor)) < feature.since and (transport is None or feature.transport in (None, transport))
    )
    return next(missing, None)
