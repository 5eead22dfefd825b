"""Waiting and working beside the callers, for asyncio. Its twin is waiting_threads."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")
Work = Callable[[], Awaitable[None]]

INTERRUPTED = asyncio.CancelledError
"""What ends a call that waits, though nothing is wrong with it."""


async def uninterrupted(
    work: Callable[Asked, Coroutine[Any, Any, Answer]], *args: Asked.args, **kwargs: Asked.kwargs
) -> Answer:
    """Goes on to its end, though nobody waits for it any more."""
    return await asyncio.shield(asyncio.ensure_future(work(*args, **kwargs)))


async def in_thread(call: Callable[Asked, Answer], *args: Asked.args, **kwargs: Asked.kwargs) -> Answer:
    return await asyncio.to_thread(call, *args, **kwargs)


class Signal:
    """Set by one side, waited for by the other."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    def clear(self) -> None:
        self._event.clear()

    async def wait(self, seconds: float) -> None:
        """Until it is set, or so long."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._event.wait()
        except TimeoutError:
            pass


class Background:
    """Work beside the callers. What it raises is its starter's: `raise_failure`."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.ensure_future(self._work())

    async def join(self) -> None:
        if self._task is not None:
            await asyncio.wait([self._task])

    def raise_failure(self) -> None:
        if self._task is not None and self._task.done() and not self._task.cancelled():
            error = self._task.exception()
            if error is not None:
                raise error
