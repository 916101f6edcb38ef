"""Callers of the apiserver with identities of their own, and the objects that they try to write."""

from gpufleet_e2e.identities.accounts import Cast, assembled
from gpufleet_e2e.identities.client import Answer, Caller, JsonObject, allowed, denied, wait_until
from gpufleet_e2e.identities.objects import ASSIGNMENT, STATUS, TEMPLATE, pod, telemetry, workload
from gpufleet_e2e.identities.paths import NAMESPACE, PODS, SYSTEM_NAMESPACE, SYSTEM_PODS, TELEMETRY, WORKLOADS

__all__ = [
    "ASSIGNMENT",
    "NAMESPACE",
    "PODS",
    "STATUS",
    "SYSTEM_NAMESPACE",
    "SYSTEM_PODS",
    "TELEMETRY",
    "TEMPLATE",
    "WORKLOADS",
    "Answer",
    "Caller",
    "Cast",
    "JsonObject",
    "allowed",
    "assembled",
    "denied",
    "pod",
    "telemetry",
    "wait_until",
    "workload",
]
