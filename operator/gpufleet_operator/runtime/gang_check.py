"""Checks with the apiserver whether all pods of a gang can be created, before the first one is."""

from collections.abc import Sequence

import structlog

from gpufleet_operator.kube.errors import ConflictError, InvalidWriteError, NotFoundError
from gpufleet_operator.kube.writer import KubeWriter
from gpufleet_operator.model.actions import CreatePod
from gpufleet_operator.model.lenient_json import Json
from gpufleet_operator.pods.quota import exceeded

_NO_DRY_RUN = "does not support dry run"
"""In the message of the apiserver if a webhook with side effects has to admit the pod."""

log = structlog.get_logger(__name__)


class GangCheck:
    """Checks the gangs of one namespace in one pass, one after the other.

    A younger gang has to fit into the quotas as they are now, and as they were before the first gang was checked: else
    it would get what was freed since an older one was rejected.

    Args:
        writer: The apiserver.
    """

    def __init__(self, writer: KubeWriter) -> None:
        self._writer = writer
        self._before: Sequence[Json] | None = None

    async def __call__(self, creates: Sequence[CreatePod]) -> None:
        """Returns if the pods may be created. Another client can still use up the quota at the same time.

        Args:
            creates: The missing pods of one gang.

        Raises:
            InvalidWriteError: The apiserver rejects such a pod, or a quota all of them together.
            ConflictError: The namespace does not exist.
            UnavailableError: There was no response.
        """
        quotas = await self._quotas(creates[0].namespace)
        if self._before is None:
            self._before = quotas
        admitted = await _admitted(self._writer, creates[0])
        rejection = exceeded(quotas, admitted, len(creates)) or exceeded(self._before, admitted, len(creates))
        if rejection:
            raise InvalidWriteError(f"{len(creates)} pods are forbidden: {rejection}", 403)

    async def _quotas(self, namespace: str) -> Sequence[Json]:
        try:
            return await self._writer.list_quotas(namespace)
        except InvalidWriteError as error:
            log.warning("cannot list quotas", namespace=namespace, error=str(error))
            return ()


async def _admitted(writer: KubeWriter, create: CreatePod) -> Json:
    """Returns the pod as the apiserver would store it, with the defaults of LimitRanges."""
    try:
        return await writer.dry_run_pod(create.body)
    except NotFoundError as error:
        raise ConflictError(str(error), error.code) from error
    except InvalidWriteError as error:
        if _NO_DRY_RUN not in str(error):
            raise
        return create.body
