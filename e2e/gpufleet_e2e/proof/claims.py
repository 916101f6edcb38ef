"""Devices of ResourceClaims: by kube-scheduler's allocation, and by the kubelets. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from gpufleet_e2e.proof import contract
from gpufleet_e2e.proof.evidence import Holding, Statement

JsonObject = Mapping[str, Any]
NAME_SEPARATOR = "\n"
"""Between the parts of a claimed device in a Holding that is not resolved yet; occurs in none of them."""


def raw_device(pool: str, device: str, share: str) -> str:
    """Returns a device as the kubelet names it, for `ClaimEvidence.resolve`."""
    return NAME_SEPARATOR.join((pool, device, share))


@dataclass(frozen=True, slots=True)
class ClaimEvidence:
    """The ResourceSlices and ResourceClaims of the driver, as read from the apiserver."""

    slices: Sequence[JsonObject] = ()
    claims: Sequence[JsonObject] = ()

    def of_pod(self, pod: JsonObject) -> Statement | None:
        """Returns the devices that are allocated to the claim of a pod; None: it has no claim."""
        entries = pod["spec"].get("resourceClaims", [])
        entry = next((one for one in entries if one["name"] == contract.POD_CLAIM), None)
        if entry is None:
            return None
        made = {one["name"]: one.get("resourceClaimName") for one in pod["status"].get("resourceClaimStatuses", [])}
        name = entry.get("resourceClaimName") or made.get(contract.POD_CLAIM)
        where = (pod["metadata"]["namespace"], name)
        claim = next((c for c in self.claims if (c["metadata"]["namespace"], c["metadata"]["name"]) == where), None)
        if claim is None:
            return Statement(None, f"ResourceClaim {name or 'of the pod'} does not exist")
        if pod["metadata"]["uid"] not in [one["uid"] for one in claim.get("status", {}).get("reservedFor", [])]:
            return Statement(None, f"ResourceClaim {name} is not reserved for the pod")
        uuids = self._uuids()
        found = (str(uuids.get((one["pool"], one["device"]), one["device"])) for one in _results(claim))
        return Statement(tuple(sorted(found)))

    def resolve(self, holding: Holding) -> Holding:
        """Returns a holding of claimed devices with their UUIDs; a share is `<uuid>::<share>`."""
        if holding.resource != contract.DRIVER:
            return holding
        uuids, whole = self._uuids(), self._whole()
        devices = []
        for raw in holding.devices:
            pool, name, share = raw.split(NAME_SEPARATOR)
            uuid = uuids.get((pool, name), name)
            devices.append(uuid if (pool, name, share) in whole or not share else f"{uuid}::{share}")
        return replace(holding, devices=tuple(sorted(devices)))

    def _uuids(self) -> dict[tuple[str, str], str]:
        return {
            (one["spec"]["pool"]["name"], device["name"]): device["attributes"]["uuid"]["string"]
            for one in self.slices
            for device in one["spec"].get("devices", [])
        }

    def _whole(self) -> set[tuple[str, str, str]]:
        """Returns pool, device and share of each allocation that has all of the device's memory."""
        capacity = {
            (one["spec"]["pool"]["name"], device["name"]): device.get("capacity", {}).get("memory", {}).get("value")
            for one in self.slices
            for device in one["spec"].get("devices", [])
        }
        found = set()
        for claim in self.claims:
            for one in _results(claim):
                total, used = capacity.get((one["pool"], one["device"])), one.get("consumedCapacity", {}).get("memory")
                if total is None or used is None or _amount(used) >= _amount(total):
                    found.add((one["pool"], one["device"], one.get("shareID", "")))
        return found


def _results(claim: JsonObject) -> Iterable[JsonObject]:
    allocation = claim.get("status", {}).get("allocation", {})
    results = allocation.get("devices", {}).get("results", [])
    return (one for one in results if one["driver"] == contract.DRIVER)


def _amount(quantity: str) -> Decimal:
    found: Decimal = parse_quantity(quantity)  # type: ignore[no-untyped-call]  # published without types
    return found
