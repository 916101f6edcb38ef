"""The controller of a pod that the operator did not create, as far as decisions need it."""

from dataclasses import dataclass

JOB_TRACKING_FINALIZER = "batch.kubernetes.io/job-tracking"
"""On each pod of a Job until the Job has counted its end."""


@dataclass(frozen=True, slots=True)
class PodOwner:
    """The controlling owner reference of a pod."""

    kind: str
    name: str
    uid: str
    api_group: str = ""

    @property
    def is_job(self) -> bool:
        """True for a v1.Job, also one of a CronJob, a JobSet or a TrainJob: it counts the end of each pod."""
        return (self.api_group, self.kind) == ("batch", "Job")

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """A container's request of extended resources."""

    container: str
    path: str
    """Field of the pod, such as `spec.containers[0]`."""
    amounts: tuple[tuple[str, int], ...]
    init: bool = False
    """An init container that ends before the others start."""

    def of(self, resource: str) -> int:
        """Returns the amount of a resource; 0 without a request."""
        return dict(self.amounts).get(resource, 0)
