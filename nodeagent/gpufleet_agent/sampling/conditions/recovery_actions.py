"""The recovery action that the driver reports for a device.

An action is a fault as long as the driver reports it; on a divided device it is one of all its partitions. "None" ends
the faults that events began, see `sampling.health`.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from gpufleet_agent.devices.base import Recovery, RecoveryAction
from gpufleet_agent.sampling.conditions.thresholds import THRESHOLDS, Observation, Threshold


def _threshold(code: str, recovery: Recovery, message: str, *, fault: bool = True) -> Threshold:
    return Threshold(
        code=code, fault=fault, recovery=recovery, rise=1, fall=1, message=f"the driver reports: {message}"
    )


_ACTIONS: Mapping[RecoveryAction, Threshold] = MappingProxyType(
    {
        RecoveryAction.RESET: _threshold("RecoveryReset", Recovery.RESET, "reset the GPU"),
        RecoveryAction.DRAIN_AND_RESET: _threshold(
            "RecoveryReset",
            Recovery.RESET,
            "end all programs on the GPU, which works at reduced capacity, and reset it",
        ),
        RecoveryAction.BUS_RESET: _threshold("RecoveryReset", Recovery.RESET, "reset the GPU's bus"),
        RecoveryAction.REBOOT: _threshold("RecoveryReboot", Recovery.REBOOT, "reboot the node"),
        RecoveryAction.DRAIN_PEERS: _threshold(
            "RecoveryDrain", Recovery.AUTOMATIC, "end all programs that access the GPU from other GPUs"
        ),
        RecoveryAction.RECOVER_DOMAIN: _threshold(
            "RecoverImexDomain", Recovery.AUTOMATIC, "recover the IMEX domain", fault=False
        ),
        RecoveryAction.UNKNOWN: _threshold(
            "RecoveryUnknown", Recovery.AUTOMATIC, "an action that this version does not know", fault=False
        ),
    }
)

RECOVERY_THRESHOLDS: Mapping[str, Threshold] = MappingProxyType(
    {threshold.code: threshold for threshold in reversed(tuple(_ACTIONS.values()))}
)
"""By code. Several actions have the same code with another message."""

ALL_THRESHOLDS: Mapping[str, Threshold] = MappingProxyType({**THRESHOLDS, **RECOVERY_THRESHOLDS})


def observe_action(action: RecoveryAction | None) -> Iterator[Observation]:
    """Yields what a reading of the recovery action shows; nothing if it is not reported."""
    if action is None:
        return
    current = _ACTIONS.get(action)
    for code, threshold in RECOVERY_THRESHOLDS.items():
        if current is not None and current.code == code:
            yield current, 1
        else:
            yield threshold, 0
