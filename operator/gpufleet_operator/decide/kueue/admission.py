"""Decides which pods get devices before Kueue admits them."""

from collections.abc import Collection

from gpufleet_api.names import SCHEDULING_GATE
from gpufleet_operator.model.claims.resource_claim import PodKey
from gpufleet_operator.model.kueue.names import SCHEDULING_GATES as KUEUE_GATES
from gpufleet_operator.model.objects import Pod


def may_have_devices(pod: Pod, with_quota: Collection[PodKey]) -> bool:
    """Returns True if a gated pod waits only for devices: Kueue has reserved its quota, or does not manage the pod.

    Args:
        pod: A pod with the operator's scheduling gate.
        with_quota: The pods for which Kueue reserves quota.
    """
    return pod.only_operator_gate or (
        (pod.namespace, pod.uid) in with_quota and set(pod.gates) <= {SCHEDULING_GATE, *KUEUE_GATES}
    )
