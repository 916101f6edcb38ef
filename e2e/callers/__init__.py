"""Callers of the apiserver with identities of their own, and the objects that they try to write."""

from callers.caller import Answer, Caller, JsonObject, allowed, denied, wait_until
from callers.cast import Cast, assembled
from callers.objects import ASSIGNMENT, STATUS, TEMPLATE, pod, telemetry, workload
from callers.paths import NAMESPACE, PODS, SYSTEM_NAMESPACE, SYSTEM_PODS, TELEMETRY, WORKLOADS

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
