"""Which XIDs are faults."""

from dataclasses import replace

import pytest

from gpufleet_agent.devices.base import Recovery
from gpufleet_agent.devices.xids.policy import XidPolicy, XidWithoutActionPolicy, xid_event
from gpufleet_agent.devices.xids.table import XIDS
from gpufleet_testing.reference import xids

RESET_GPU = (46, 62, 64, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158)
RESTART_APP = (8, 11, 13, 25, 31, 32, 39, 60, 68, 69, 77, 80, 88, 94, 96, 105, 126, 135, 139)
IGNORE = (37, 38, 43, 44, 63, 66, 67, 92, 93, 106, 107, 121, 137, 141, 152, 153, 157, 160, 161)


def test_the_catalog_has_172_codes_and_their_actions() -> None:
    assert sorted(XIDS) == list(range(1, 173))
    assert [code for code, (_, action) in XIDS.items() if action == "RESET_GPU"] == list(RESET_GPU)
    assert sum(action == "RESTART_APP" for _, action in XIDS.values()) == 48
    assert sum(action == "IGNORE" for _, action in XIDS.values()) == 21
    assert all(text for text, _ in XIDS.values())


def test_the_module_is_generated_from_the_data_file() -> None:
    assert xids.MODULE.read_text(encoding="utf-8") == xids.module()
    assert "docs.nvidia.com" in xids.CATALOG.read_text(encoding="utf-8")


@pytest.mark.parametrize("code", RESET_GPU)
def test_xid_that_requires_a_reset_is_a_fault_until_then(code: int) -> None:
    event = xid_event("GPU-0", code)
    assert (event.fault, event.recovery, event.warning) == (True, Recovery.RESET, None)


@pytest.mark.parametrize("code", [*RESTART_APP, *IGNORE, 45, 154])
def test_xid_of_an_application_is_no_fault(code: int) -> None:
    event = xid_event("GPU-0", code)
    assert (event.fault, event.warning, event.contained) == (False, None, code == 94)


@pytest.mark.parametrize(
    ("code", "recovery"),
    [
        (48, Recovery.RESET),
        (54, Recovery.REPLACEMENT),
        (74, Recovery.RESET),
        (79, Recovery.REBOOT),
        (144, Recovery.RESET),
        (150, Recovery.RESET),
        (151, Recovery.REBOOT),
    ],
)
def test_other_actions_of_the_catalog_have_their_recovery(code: int, recovery: Recovery) -> None:
    event = xid_event("GPU-0", code)
    assert (event.fault, event.recovery) == (True, recovery)


@pytest.mark.parametrize("code", [61, 78, 142, 159, 167, 172, 173, 999])
def test_xid_without_an_action_follows_the_setting(code: int) -> None:
    warning = xid_event("GPU-0", code)
    assert (warning.fault, warning.warning) == (False, "XidWithoutAction")
    fault = xid_event("GPU-0", code, XidPolicy(unknown=XidWithoutActionPolicy.FAULT))
    assert (fault.fault, fault.warning, fault.recovery) == (True, None, Recovery.AUTOMATIC)
    ignored = xid_event("GPU-0", code, XidPolicy(unknown=XidWithoutActionPolicy.IGNORE))
    assert (ignored.fault, ignored.warning) == (False, None)


def test_settings_take_precedence_over_the_catalog() -> None:
    policy = XidPolicy(ignored=frozenset({79, 999}), fatal=frozenset({31, 119, 54}))
    for code in (79, 999):
        event = xid_event("GPU-0", code, policy)
        assert (event.fault, event.warning) == (False, None)
    assert [xid_event("GPU-0", code, policy).fault for code in (31, 119, 54)] == [True] * 3
    recoveries = [xid_event("GPU-0", code, policy).recovery for code in (31, 119, 54)]
    assert recoveries == [Recovery.RESET, Recovery.RESET, Recovery.REPLACEMENT]
    both = replace(policy, fatal=frozenset({79}))
    assert not xid_event("GPU-0", 79, both).fault
