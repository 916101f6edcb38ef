"""Takes the request for GPUs out of a pod template, as other device plugins read it."""

from dataclasses import dataclass
from typing import Any

from gpufleet_api.names import ENV_VISIBLE_DEVICES, MAX_DEVICES_PER_REPLICA, RESOURCE
from gpufleet_cli.errors import InputError
from gpufleet_operator.model.lenient_json import as_list, as_map, maps, text

_WHOLE = ("nvidia.com/gpu", RESOURCE)
_MEMORY = ("nvidia.com/gpumem", "aliyun.com/gpu-mem-mib")
"""Memory of a shared GPU in MiB, as HAMi reads it."""
_COMPUTE = "nvidia.com/gpucores"
_UNSUPPORTED = ("amd.com/", "gpu.intel.com/", "nvidia.com/", "aliyun.com/")


@dataclass(frozen=True, slots=True)
class GPURequest:
    """`spec.devices` of a GPUWorkload, and what was changed in the template for it."""

    devices: dict[str, Any]
    changes: tuple[str, ...]


def take_request(template: dict[str, Any], where: str) -> GPURequest | None:
    """Removes the request for GPUs from `template` and returns it; None: the template requests none.

    Args:
        template: A pod template, which is changed.
        where: The template, for messages.

    Raises:
        InputError: Several containers request GPUs, or one requests what a GPUWorkload cannot.
    """
    spec = as_map(template.get("spec"))
    containers = list(maps(spec.get("containers")))
    asking = [one for one in containers if _gpu_resources(one)]
    for one in maps(spec.get("initContainers")):
        if _gpu_resources(one):
            raise InputError(f"{where}: init container {text(one.get('name'))} requests GPUs: only app containers can")
    if not asking:
        return None
    if len(asking) > 1:
        names = ", ".join(text(one.get("name")) for one in asking)
        raise InputError(f"{where}: containers {names} request GPUs: only one container of a GPUWorkload can")
    (container,) = asking
    name = text(container.get("name"))
    amounts = {resource: _amount(container, resource, where) for resource in _gpu_resources(container)}
    known = {*_WHOLE, *_MEMORY, _COMPUTE}
    if unknown := sorted(amounts.keys() - known):
        raise InputError(f"{where}: container {name} requests {', '.join(unknown)}, which has no equivalent")
    count = max((amounts.get(resource, 0) for resource in _WHOLE), default=0) or 1
    if count > MAX_DEVICES_PER_REPLICA:
        raise InputError(f"{where}: container {name} requests {count} GPUs: a pod can have {MAX_DEVICES_PER_REPLICA}")
    memory = max((amounts.get(resource, 0) for resource in _MEMORY), default=0)
    devices: dict[str, Any] = {"count": count}
    if memory:
        devices |= {"mode": "Shared", "memoryMiB": memory}
        if amounts.get(_COMPUTE):
            devices["computePercent"] = amounts[_COMPUTE]
    if len(containers) > 1:
        devices["container"] = name
    requested = ", ".join(f"{resource}={amount}" for resource, amount in amounts.items())
    changes = [f"resources {requested} of container {name} are now spec.devices: the operator adds the request"]
    _remove_resources(container, set(amounts))
    changes += _remove_visible_devices(containers)
    return GPURequest(devices, tuple(changes))


def _gpu_resources(container: Any) -> list[str]:
    resources = as_map(container.get("resources"))
    names = dict.fromkeys([*as_map(resources.get("limits")), *as_map(resources.get("requests"))])
    return [name for name in names if name in _WHOLE or name.startswith(_UNSUPPORTED)]


def _amount(container: Any, resource: str, where: str) -> int:
    resources = as_map(container.get("resources"))
    amount = as_map(resources.get("limits")).get(resource, as_map(resources.get("requests")).get(resource))
    if not str(amount).isdigit():
        raise InputError(f"{where}: {resource}: Invalid value: {amount!r}: must be a whole number")
    return int(str(amount))


def _remove_resources(container: Any, names: set[str]) -> None:
    resources = container["resources"]
    for kind in ("limits", "requests"):
        left = {name: amount for name, amount in as_map(resources.get(kind)).items() if name not in names}
        if left:
            resources[kind] = left
        else:
            resources.pop(kind, None)
    if not resources:
        del container["resources"]


def _remove_visible_devices(containers: list[Any]) -> list[str]:
    """Removes the variable that would override the assigned devices."""
    changes = []
    for container in containers:
        env = [one for one in as_list(container.get("env")) if as_map(one).get("name") != ENV_VISIBLE_DEVICES]
        if "env" in container and len(env) < len(container["env"]):
            changes.append(
                f"{ENV_VISIBLE_DEVICES} of container {text(container.get('name'))} removed: the agent sets it"
            )
            if env:
                container["env"] = env
            else:
                del container["env"]
    return changes
