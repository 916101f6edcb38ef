import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from gpufleet_operator.kube.errors import ApiError, InvalidWriteError, NotFoundError
from gpufleet_operator.runtime.watches.optional_informer import follow_optional

PATH = "/apis/gpufleet.dev/v1alpha1/gpudemands"


class _Informer:
    """Fails a few times, and then follows."""

    path = PATH

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)

    async def run(self, listed: Callable[[], None]) -> None:
        if self._errors:
            raise self._errors.pop(0)
        listed()
        await asyncio.Event().wait()


@pytest.mark.parametrize("error", [NotFoundError("no such kind", 404), InvalidWriteError("forbidden", 403)])
async def test_missing_kind_or_permission_is_waited_for(error: Exception) -> None:
    listed, pauses, reported, unreadable = asyncio.Event(), [], [], []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def denied(path: str, error: ApiError) -> None:
        reported.append((path, error.code))

    following = follow_optional(
        _Informer(error, error),  # type: ignore[arg-type] # only `path` and `run` are used
        listed.set,
        denied,
        unreadable=lambda: unreadable.append(listed.is_set()),
        sleep=sleep,
    )
    task = asyncio.create_task(following)
    async with asyncio.timeout(5):
        await listed.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert pauses == [60.0, 60.0]
    missing = isinstance(error, NotFoundError)
    assert reported == ([] if missing else [(PATH, 403)] * 2)
    assert unreadable == [False, False]
