"""Accounts that call the apiserver with real tokens, and the objects that they try to write."""

from gpufleet_e2e.identities.accounts import Accounts, created_accounts
from gpufleet_e2e.identities.client import (
    Client,
    JsonObject,
    Response,
    assert_allowed,
    assert_denied,
    wait_until,
    wait_until_forbidden,
)
from gpufleet_e2e.identities.objects import ASSIGNMENT, STATUS, TEMPLATE, lease, pod, telemetry, workload
from gpufleet_e2e.identities.paths import (
    LEASES,
    NAMESPACE,
    NODE_LEASES,
    PODS,
    SYSTEM_NAMESPACE,
    SYSTEM_PODS,
    TELEMETRY,
    WORKLOADS,
)

__all__ = [
    "ASSIGNMENT",
    "LEASES",
    "NAMESPACE",
    "NODE_LEASES",
    "PODS",
    "STATUS",
    "SYSTEM_NAMESPACE",
    "SYSTEM_PODS",
    "TELEMETRY",
    "TEMPLATE",
    "WORKLOADS",
    "Accounts",
    "Client",
    "JsonObject",
    "Response",
    "assert_allowed",
    "assert_denied",
    "created_accounts",
    "lease",
    "pod",
    "telemetry",
    "wait_until",
    "wait_until_forbidden",
    "workload",
]
