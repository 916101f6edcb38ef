"""Identifies the template of a container."""

import hashlib
import re
import sys
from dataclasses import dataclass
from functools import lru_cache

from gpufleet_api.base import Name
from gpufleet_api.demand.gpu_demand import DemandOwner, DemandSpec
from gpufleet_api.names import WORKLOAD_KIND
from gpufleet_operator.model.lenient_json import Json, maps, text
from gpufleet_operator.model.objects import Pod

_GENERATED = re.compile(r"-[bcdfghjklmnpqrstvwxz2456789]{5}\Z")
"""Suffix that the apiserver adds to `generateName`."""
_TEMPLATE_HASH = re.compile(r"-[456789bcdf]{6,10}\Z")
"""Suffix that a Deployment adds to the names of its ReplicaSets."""
_SCHEDULED = re.compile(r"-\d{8,11}\Z")
"""Suffix that a CronJob adds to the names of its Jobs: minutes since 1970."""
_DIGITS = 8
_MAX_PREFIX = 100
_ODD = re.compile(r"[^a-z0-9-]+")


@dataclass(frozen=True, slots=True, order=True)
class TemplateKey:
    """Containers with equal keys are runs of one template."""

    namespace: str
    owner_kind: str
    owner: str
    container: str
    image: str
    """Without tag and digest."""

    @property
    def name(self) -> Name:
        """Returns the name of the GPUDemand."""
        digest = hashlib.sha256(repr((self.owner_kind, self.owner, self.container, self.image)).encode())
        readable = _ODD.sub("-", f"{self.owner_kind}-{self.owner}-{self.container}".lower())[:_MAX_PREFIX]
        return f"{readable}-{digest.hexdigest()[:_DIGITS]}"

    @property
    def spec(self) -> DemandSpec:
        """Returns the spec of the GPUDemand."""
        owner = DemandOwner(kind=self.owner_kind, name=self.owner)
        return DemandSpec(owner=owner, container=self.container, image=self.image)


def container_images(spec: Json) -> tuple[tuple[str, str], ...]:
    """Returns name and image of each container of a v1.PodSpec."""
    containers = (one for kind in ("initContainers", "containers") for one in maps(spec.get(kind)))
    return tuple((sys.intern(text(one.get("name"))), sys.intern(text(one.get("image")))) for one in containers)


def template_of(pod: Pod, container: str) -> TemplateKey:
    """Returns the template of a container of a pod."""
    if pod.workload_uid:
        kind, owner = WORKLOAD_KIND, pod.workload_label
    elif pod.owner is not None:
        kind, owner = pod.owner.kind, pod.owner.name
    else:
        kind, owner = "Pod", pod.name
    return template_key(pod.namespace, kind, owner, container, dict(pod.images).get(container, ""))


@lru_cache(maxsize=65_536)
def template_key(namespace: str, kind: str, owner: str, container: str, image: str) -> TemplateKey:
    """Returns the key of containers of this owner, whose name loses the suffix of each run.

    Args:
        namespace: Of the owner.
        kind: Of the owner.
        owner: Its name.
        container: Name of the container.
        image: As in the container's spec.
    """
    for of_kind, pattern, parent in (("ReplicaSet", _TEMPLATE_HASH, "Deployment"), ("Job", _SCHEDULED, "CronJob")):
        if kind == of_kind and (found := pattern.search(owner)):
            return TemplateKey(namespace, parent, owner[: found.start()], container, without_tag(image))
    return TemplateKey(namespace, kind, _GENERATED.sub("", owner) or owner, container, without_tag(image))


def without_tag(image: str) -> str:
    """Returns the name of an image: `registry:5000/team/train` for `registry:5000/team/train:v1@sha256:...`."""
    name = image.partition("@")[0]
    path, slash, last = name.rpartition("/")
    return f"{path}{slash}{last.partition(':')[0]}"
