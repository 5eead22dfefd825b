"""Group commit for asyncio: callers share a commit, whoever is alone doesn't wait for company. Its twin is group_commit_threads."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from meterbook.book.groups import (
    ENTRIES_WAITING_MAX,
    FLUSHERS_MAX,
    QUEUE_WAIT_S,
    Call,
    all_in_progress,
    entries_of,
    settle_group,
    take_group,
)
from meterbook.core.entries import Entry
from meterbook.core.recorded import Answer
from meterbook.errors import LedgerUnavailable, MeterbookError, Overloaded

Write = Callable[[Sequence[Entry]], Awaitable[list[Answer]]]
Waiting = Call["asyncio.Future[list[Answer]]"]


class GroupCommit:
    """`submit` returns when the entries are committed, or were refused with nothing of the call written.

    What waits is bounded: a caller who finds the queue full waits for room, and gets `Overloaded` after `QUEUE_WAIT_S`.
    """

    def __init__(
        self, write: Write, entries_waiting_max: int = ENTRIES_WAITING_MAX, queue_wait_s: int = QUEUE_WAIT_S
    ) -> None:
        self._write = write
        self._entries_waiting_max = entries_waiting_max
        self._queue_wait_s = queue_wait_s
        self._waiting: deque[Waiting] = deque()
        self._entries_waiting = 0
        self._room = asyncio.Condition()
        self._flushers: set[asyncio.Task[None]] = set()
        self._flushing = 0  # counted apart: a task that has left its loop is still in the set for a moment

    async def submit(self, entries: Sequence[Entry], *, alone: bool = False) -> list[Answer]:
        if self._is_full(entries):
            await self._wait_for_room(entries)
        call: Waiting = Call(entries, asyncio.get_running_loop().create_future(), alone)
        self._waiting.append(call)
        self._entries_waiting += len(entries)
        if self._flushing < FLUSHERS_MAX:
            self._flushing += 1
            flusher = asyncio.create_task(self._flush())
            self._flushers.add(flusher)
            flusher.add_done_callback(self._flushers.discard)
        return await call.done

    async def drain(self) -> None:
        """Returns when everything that was submitted has been answered."""
        while self._flushers:
            await asyncio.wait(self._flushers)

    def _is_full(self, entries: Sequence[Entry]) -> bool:
        return self._entries_waiting > 0 and self._entries_waiting + len(entries) > self._entries_waiting_max

    async def _wait_for_room(self, entries: Sequence[Entry]) -> None:
        try:
            async with asyncio.timeout(self._queue_wait_s), self._room:
                await self._room.wait_for(lambda: not self._is_full(entries))
        except TimeoutError:
            raise Overloaded from None

    async def _flush(self) -> None:
        try:
            while self._waiting:
                group = take_group(self._waiting)
                self._entries_waiting -= sum(len(call.entries) for call in group)
                await self._tell_room()
                await self._answer(group)
        finally:
            self._flushing -= 1

    async def _answer(self, group: list[Waiting]) -> None:
        """An error that nobody foresaw is the callers', not the flusher's: what waits behind them is still to be written."""
        try:
            await self._write_group(group)
        except BaseException as error:
            _refuse(group, error)
            if not isinstance(error, Exception):
                raise

    async def _tell_room(self) -> None:
        if self._entries_waiting < self._entries_waiting_max:
            async with self._room:
                self._room.notify_all()

    async def _write_group(self, group: list[Waiting]) -> None:
        while group:
            try:
                answers = await self._write(entries_of(group))
            except MeterbookError as error:
                await self._fail(group, error)
                return
            if len(group) > 1 and all_in_progress(answers):
                await self._write_each(group)
                return
            settled = settle_group(group, answers)
            for call, its_answers in settled.answered:
                _tell(call, its_answers)
            group = settled.again

    async def _fail(self, group: list[Waiting], error: MeterbookError) -> None:
        """What failed for a group may be one call's fault: each is written alone, which its keys make safe."""
        if len(group) > 1:
            await self._write_each(group)
        else:
            _refuse(group, error)

    async def _write_each(self, group: list[Waiting]) -> None:
        for position, call in enumerate(group):
            await self._write_group([call])
            error = None if call.done.cancelled() else call.done.exception()
            if isinstance(error, LedgerUnavailable):  # nobody's fault: the others need not each find it out
                _refuse(group[position + 1 :], error)
                return


def _tell(call: Waiting, answers: list[Answer]) -> None:
    if not call.done.done():  # its caller was cancelled: the entries are recorded all the same
        call.done.set_result(answers)


def _refuse(group: list[Waiting], error: BaseException) -> None:
    for call in group:
        if not call.done.done():
            call.done.set_exception(error)
