"""Calls that wait at the same moment are answered together, lane by lane: no timer, and a lone caller waits for nobody.

Its twin is lanes_threads.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from meterbook.book.groups import CALLS_PER_GROUP_MAX, CALLS_WAITING_MAX
from meterbook.errors import MeterbookError, Overloaded

Asked = TypeVar("Asked")
Said = TypeVar("Said")


@dataclass(slots=True, eq=False)
class _Call(Generic[Asked, Said]):
    asked: Asked
    done: "asyncio.Future[Said]"


class Lanes(Generic[Asked, Said]):
    """`work` answers the calls of one lane, one group at a time, an answer or an error each; lanes don't wait for one another.

    A caller who is cancelled before the work on his call has begun leaves nothing behind; an answer to one who has gone is `let_go`.
    """

    def __init__(
        self,
        work: Callable[[int, Sequence[Asked]], Awaitable[Sequence[Said | MeterbookError]]],
        calls_waiting_max: int = CALLS_WAITING_MAX,
        let_go: Callable[[Asked, Said], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._let_go = let_go
        self._work = work
        self._calls_waiting_max = calls_waiting_max
        self._lanes: dict[int, deque[_Call[Asked, Said]]] = {}
        self._waiting = 0
        self._workers: set[asyncio.Task[None]] = set()

    async def submit(self, lane: int, asked: Asked) -> Said:
        """Raises what `work` answered this call, and `Overloaded`."""
        if self._waiting >= self._calls_waiting_max:
            raise Overloaded
        call: _Call[Asked, Said] = _Call(asked, asyncio.get_running_loop().create_future())
        self._waiting += 1
        if lane in self._lanes:
            self._lanes[lane].append(call)
        else:
            self._lanes[lane] = deque([call])
            worker = asyncio.create_task(self._serve(lane))
            self._keep(worker)
        try:
            return await call.done
        except asyncio.CancelledError:
            if call.done.done() and not call.done.cancelled() and call.done.exception() is None:
                self._abandon(asked, call.done.result())  # answered in the same turn of the loop
            raise

    def _keep(self, task: "asyncio.Task[None]") -> None:
        self._workers.add(task)
        task.add_done_callback(self._workers.discard)

    def _abandon(self, asked: Asked, said: Said) -> None:
        if self._let_go is not None:
            self._keep(asyncio.create_task(self._let_go(asked, said)))

    async def drain(self) -> None:
        """Returns when everything that was submitted has been answered."""
        while self._workers:
            await asyncio.wait(self._workers)

    async def _serve(self, lane: int) -> None:
        waiting = self._lanes[lane]
        try:
            while waiting:
                await self._answer(lane, self._take(waiting))
        finally:
            del self._lanes[lane]
            while waiting:  # the loop is being shut down
                self._take(waiting)

    def _take(self, waiting: deque[_Call[Asked, Said]]) -> list[_Call[Asked, Said]]:
        group = [waiting.popleft() for _ in range(min(len(waiting), CALLS_PER_GROUP_MAX))]
        self._waiting -= len(group)
        return [call for call in group if not call.done.done()]

    async def _answer(self, lane: int, group: list[_Call[Asked, Said]]) -> None:
        """An error that nobody foresaw is the callers', not the worker's: what waits behind them is still to be answered."""
        try:
            answers = await self._work(lane, [call.asked for call in group]) if group else []
        except BaseException as error:
            for call in group:
                self._tell(call, error)
            if not isinstance(error, Exception):
                raise
            return
        for call, answer in zip(group, answers, strict=True):
            self._tell(call, answer)

    def _tell(self, call: _Call[Asked, Said], answer: Said | BaseException) -> None:
        if isinstance(answer, BaseException):
            if not call.done.done():
                call.done.set_exception(answer)
        elif call.done.done():  # its caller was cancelled meanwhile
            self._abandon(call.asked, answer)
        else:
            call.done.set_result(answer)
