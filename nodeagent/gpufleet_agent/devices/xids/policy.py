"""Decides which XIDs are faults: by the settings, else by NVIDIA's catalog.

A driver from 565 on reports itself what a GPU needs (see `sampling.conditions.recovery_actions`): where it does, this
decision only bridges the seconds until it has reported that nothing is needed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from gpufleet_agent.devices.base import DeviceEvent, Recovery
from gpufleet_agent.devices.xids.table import XIDS

XID_ERROR = "XidError"
XID_WITHOUT_ACTION = "XidWithoutAction"
"""Code of the warning about an XID for which the catalog has no action that the node could take."""

CONTAINED_ECC = 94

NO_FAULT = frozenset({"IGNORE", "RESTART_APP", "WORKFLOW_XID_45", "XID_154"})
"""Actions that concern the application or nothing. XID 45 follows other XIDs, and 154 the recovery action."""

FAULTS: Mapping[str, Recovery] = MappingProxyType(
    {
        "CHECK_MECHANICALS": Recovery.REPLACEMENT,
        "RESET_GPU": Recovery.RESET,
        "RESTART_BM": Recovery.REBOOT,
        "RESTART_VM": Recovery.REBOOT,
        "WORKFLOW_NVLINK5_ERR": Recovery.RESET,
        "WORKFLOW_NVLINK_ERR": Recovery.RESET,
        "WORKFLOW_XID_48": Recovery.RESET,
    }
)
"""Actions that concern the GPU, with what ends the fault."""


class XidWithoutActionPolicy(StrEnum):
    """Treatment of an XID for which the catalog has no action on the node."""

    IGNORE = "Ignore"
    WARNING = "Warning"
    FAULT = "Fault"


@dataclass(frozen=True, slots=True, kw_only=True)
class XidPolicy:
    """The settings. `ignored` and `fatal` take precedence over the catalog."""

    ignored: frozenset[int] = frozenset()
    """Never a fault."""
    fatal: frozenset[int] = frozenset()
    """A fault until a reset, or what the catalog requires."""
    unknown: XidWithoutActionPolicy = XidWithoutActionPolicy.WARNING


def xid_event(uuid: str | None, code: int, policy: XidPolicy = XidPolicy()) -> DeviceEvent:
    """Returns the event for an XID."""
    text, action = XIDS.get(code, ("", ""))
    message = f"XID {code}: {text}" if text else f"XID {code}"
    recovery = FAULTS.get(action)
    contained = code == CONTAINED_ECC
    if code in policy.ignored:
        return DeviceEvent(uuid, XID_ERROR, code, message, fault=False)
    if code in policy.fatal:
        return DeviceEvent(uuid, XID_ERROR, code, message, fault=True, recovery=recovery or Recovery.RESET)
    if recovery is not None:
        return DeviceEvent(uuid, XID_ERROR, code, message, fault=True, recovery=recovery)
    if action in NO_FAULT:
        return DeviceEvent(uuid, XID_ERROR, code, message, fault=False, contained=contained)
    match policy.unknown:
        case XidWithoutActionPolicy.FAULT:
            return DeviceEvent(uuid, XID_ERROR, code, message, fault=True)
        case XidWithoutActionPolicy.WARNING:
            return DeviceEvent(uuid, XID_ERROR, code, message, fault=False, warning=XID_WITHOUT_ACTION)
        case XidWithoutActionPolicy.IGNORE:
            return DeviceEvent(uuid, XID_ERROR, code, message, fault=False)
