"""`KubeApi` on lightkube. No other module uses the client."""

import asyncio
import hashlib
import random
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx2
import msgspec
from lightkube import AsyncClient
from lightkube.core.exceptions import ApiError, ConfigError
from lightkube.generic_resource import create_global_resource, create_namespaced_resource
from lightkube.models.meta_v1 import ObjectMeta, OwnerReference

from gpufleet_agent.kube.api import KubeError, ObjectNotFoundError, RejectedError
from gpufleet_agent.kube.model import LeaseRenewal, ObjectFormatError, PodEvent, TelemetryObject, parse_object
from gpufleet_agent.kube.resource_slices import ClaimableDevice, PublishedSlice, parse_published, parse_slices
from gpufleet_api.names import (
    AGENT_FIELD_MANAGER,
    AGENT_LEASE,
    AGENT_LEASE_PREFIX,
    API_VERSION,
    GROUP,
    LEASE_LABEL,
    OBSERVED_AT_ANNOTATION,
    TELEMETRY_KIND,
    TELEMETRY_PLURAL,
    VERSION,
)
from gpufleet_common import timestamps

CONFLICT = 409
REJECTIONS = frozenset({400, 403, 405, 413, 422})

REQUEST_TIMEOUT_SECONDS = 10.0

WATCH_SECONDS = 240
"""The apiserver ends a watch after this long."""

WATCH_GRACE_SECONDS = 10.0
"""After that the connection counts as lost: no FIN reaches a node without a network."""

WATCH_SILENCE_SECONDS = 75.0
"""After that without an event, too: the apiserver sends a bookmark about every minute."""

Telemetry = create_global_resource(GROUP, VERSION, TELEMETRY_KIND, TELEMETRY_PLURAL)

# The generic form, because lightkube's own Node class imports the models of the whole core group.
Node = create_global_resource("", "v1", "Node", "nodes", verbs=["get"])
ResourceSlice = create_global_resource(
    "resource.k8s.io", "v1", "ResourceSlice", "resourceslices", verbs=["list", "patch", "watch"]
)
ResourceClaim = create_namespaced_resource("resource.k8s.io", "v1", "ResourceClaim", "resourceclaims", verbs=["get"])
Event = create_namespaced_resource("", "v1", "Event", "events", verbs=["post"])
Lease = create_namespaced_resource("coordination.k8s.io", "v1", "Lease", "leases", verbs=["patch"])

MAX_MESSAGE_LENGTH = 1024
MAX_NAME_LENGTH = 253


class LightkubeTelemetryApi:
    """The GPUTelemetry object of one node.

    Args:
        node_name: Name of the node, and of the object.
        rng: Jitter of the length of a watch, so that the agents of a cluster do not reconnect at the same time.
        client: For tests; by default of the in-cluster configuration, `KUBECONFIG` or `~/.kube/config`.

    Raises:
        KubeError: There is no configuration for the apiserver.
    """

    def __init__(self, node_name: str, rng: random.Random, client: AsyncClient | None = None) -> None:
        self._node_name = node_name
        self._rng = rng
        if client is None:
            try:
                client = AsyncClient(timeout=httpx2.Timeout(REQUEST_TIMEOUT_SECONDS), field_manager=AGENT_FIELD_MANAGER)
            except ConfigError as error:
                raise KubeError(f"no configuration for the apiserver: {error}") from error
        self._client = client

    async def get(self) -> TelemetryObject:
        with _translated():
            return parse_object(await self._client.get(Telemetry, self._node_name))

    async def ensure(self) -> TelemetryObject:
        with _translated():
            metadata = ObjectMeta(name=self._node_name, ownerReferences=[await self._owner()])
            manifest = Telemetry(apiVersion=API_VERSION, kind=TELEMETRY_KIND, metadata=metadata)
            return parse_object(await self._client.apply(manifest, force=True))

    async def apply_status(self, status: Mapping[str, Any]) -> TelemetryObject:
        metadata = ObjectMeta(name=self._node_name)
        manifest = Telemetry.Status(apiVersion=API_VERSION, kind=TELEMETRY_KIND, metadata=metadata, status=dict(status))
        with _translated():
            return parse_object(await self._client.apply(manifest, self._node_name, force=True))

    async def watch(self) -> AsyncGenerator[TelemetryObject | None, None]:
        # Without a resourceVersion the first event is the current object, so there is nothing to resume, and no
        # expired version (410) to request.
        async with aclosing(self._events(Telemetry, self._node_name)) as events:
            async for kind, found in events:
                yield None if kind == "DELETED" else parse_object(found)

    async def renew_lease(self, renewal: LeaseRenewal) -> None:
        metadata = ObjectMeta(
            name=f"{AGENT_LEASE_PREFIX}{self._node_name}",
            namespace=renewal.namespace,
            labels={LEASE_LABEL: AGENT_LEASE},
            annotations={OBSERVED_AT_ANNOTATION: renewal.observed_at},
            ownerReferences=[OwnerReference(API_VERSION, TELEMETRY_KIND, self._node_name, renewal.telemetry_uid)],
        )
        spec = {
            "holderIdentity": renewal.holder,
            "leaseDurationSeconds": renewal.duration_seconds,
            "renewTime": timestamps.micros(datetime.now(UTC)),
        }
        with _translated():
            await self._client.apply(
                Lease(apiVersion="coordination.k8s.io/v1", kind="Lease", metadata=metadata, spec=spec), force=True
            )

    async def create_event(self, event: PodEvent) -> None:
        """See `EventApi.create_event`. The name derives from the content, so the apiserver rejects a second one."""
        digest = hashlib.sha256(f"{event.pod_uid}/{event.reason}{event.episode}".encode()).hexdigest()[:16]
        name = f"{event.pod[: MAX_NAME_LENGTH - len(digest) - 1].rstrip('.-')}.{digest}"
        now = timestamps.seconds(datetime.now(UTC))
        manifest = Event(
            apiVersion="v1",
            kind="Event",
            metadata=ObjectMeta(name=name, namespace=event.namespace),
            involvedObject={
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": event.namespace,
                "name": event.pod,
                "uid": event.pod_uid,
            },
            type="Warning",
            reason=event.reason,
            message=event.message[:MAX_MESSAGE_LENGTH],
            source={"component": AGENT_FIELD_MANAGER, "host": self._node_name},
            reportingComponent=AGENT_FIELD_MANAGER,
            reportingInstance=self._node_name,
            firstTimestamp=now,
            lastTimestamp=now,
            count=1,
        )
        with _translated():
            try:
                await self._client.create(manifest)
            except ApiError as error:
                if error.status.code != CONFLICT:
                    raise

    async def claimable_devices(self) -> dict[ClaimableDevice, frozenset[str]]:
        with _translated():
            slices = self._client.list(ResourceSlice, fields={"spec.nodeName": self._node_name})
            return parse_slices([each async for each in slices])

    async def get_claim(self, namespace: str, name: str) -> Mapping[str, Any]:
        with _translated():
            claim: Mapping[str, Any] = await self._client.get(ResourceClaim, name, namespace=namespace)
            return claim

    async def apply_slice(self, name: str, spec: Mapping[str, Any]) -> PublishedSlice:
        with _translated():
            # Read each time: a Node that was deleted and registered again has another UID.
            metadata = ObjectMeta(name=name, ownerReferences=[await self._owner()])
            manifest = ResourceSlice(
                apiVersion="resource.k8s.io/v1", kind="ResourceSlice", metadata=metadata, spec=spec
            )
            return parse_published(await self._client.apply(manifest, force=True))

    async def watch_slice(self, name: str) -> AsyncGenerator[PublishedSlice | None, None]:
        with _translated():
            listed = self._client.list(ResourceSlice, fields={"metadata.name": name})
            found = [parse_published(each) async for each in listed]
            version = listed.resourceVersion
        yield found[0] if found else None
        async with aclosing(self._events(ResourceSlice, name, version)) as events:
            async for kind, each in events:
                yield None if kind == "DELETED" else parse_published(each)

    async def close(self) -> None:
        await self._client.close()

    async def _owner(self) -> OwnerReference:
        node = await self._client.get(Node, self._node_name)
        return OwnerReference("v1", "Node", self._node_name, node["metadata"]["uid"])

    async def _events(
        self, resource: type[Any], name: str, version: str | None = None
    ) -> AsyncGenerator[tuple[str, Any], None]:
        """Yields the events of a watch of one object, until the apiserver ends it or is silent."""
        seconds = round(WATCH_SECONDS * self._rng.uniform(1.0, 1.25))
        # lightkube's own `watch` cannot request bookmarks.
        client = self._client._client  # noqa: SLF001
        request = client.prepare_request(
            "list",
            res=resource,
            watch=True,
            params={
                "allowWatchBookmarks": "true",
                "fieldSelector": f"metadata.name={name}",
                "resourceVersion": version,
                "timeoutSeconds": seconds,
            },
        )
        events = client.watch(request)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds + WATCH_GRACE_SECONDS
        try:
            # lightkube would continue by itself after the server's timeout; the deadline ends that.
            while True:
                try:
                    async with asyncio.timeout_at(min(deadline, loop.time() + WATCH_SILENCE_SECONDS)):
                        with _translated():
                            event = await anext(events)
                except (StopAsyncIteration, TimeoutError):
                    return
                if event[0] != "BOOKMARK":
                    yield event
        finally:
            # lightkube holds the response open in its generator.
            await events.aclose()


@contextmanager
def _translated() -> Iterator[None]:
    """Converts the client's errors to `KubeError`."""
    try:
        yield
    except ObjectFormatError:
        raise
    except ApiError as error:
        status = error.status
        if status.reason is None and error.response is not None:
            raise KubeError(f"apiserver: {error.response.status_code} without a Status") from error
        raise _kind(error)(f"apiserver: {status.code} {status.reason}: {status.message}") from error
    except httpx2.HTTPStatusError as error:
        # Not from the apiserver itself: a proxy, or a plain-text 404 for a group that is not installed.
        raise KubeError(f"apiserver: {error}") from error
    except httpx2.HTTPError as error:
        raise KubeError(f"apiserver: {type(error).__name__}: {error}") from error
    except (ConfigError, msgspec.DecodeError, OSError, ValueError, LookupError) as error:
        # The service account's token file is missing or unreadable (out of file descriptors, EIO); or the response is
        # truncated, is not JSON although it claims to be, or lacks the Content-Type that the client requires.
        raise KubeError(f"apiserver: {type(error).__name__}: {error}") from error


def _kind(error: ApiError) -> type[KubeError]:
    """Returns the class of an error that has a Kubernetes Status."""
    details = error.status.details
    # A missing object has its name in the details, unlike the JSON of a load balancer or a missing kind.
    if error.status.reason == "NotFound" and details is not None and details.name:
        return ObjectNotFoundError
    return RejectedError if error.status.code in REJECTIONS else KubeError
