"""Group commit for threads: no thread of its own, one of the waiting callers writes for all. Its twin is group_commit_asyncio."""

from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition

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

Write = Callable[[Sequence[Entry]], list[Answer]]
Result = list[list[Answer] | BaseException]
"""Empty until the caller is told."""
Waiting = Call[Result]


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
        self._flushers = 0
        self._changed = Condition()

    def submit(self, entries: Sequence[Entry], *, alone: bool = False) -> list[Answer]:
        call: Waiting = Call(entries, [], alone)
        with self._changed:
            if not self._changed.wait_for(lambda: self._has_room(entries), self._queue_wait_s):
                raise Overloaded
            self._waiting.append(call)
            self._entries_waiting += len(entries)
        try:
            self._await(call)
        except BaseException:  # interrupted: once its caller has gone, nobody might be left to write it
            self._withdraw(call)
            raise
        (result,) = call.done
        if isinstance(result, BaseException):
            raise result
        return result

    def drain(self) -> None:
        """Returns when everything that was submitted has been answered."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._flushers)

    def _has_room(self, entries: Sequence[Entry]) -> bool:
        return self._entries_waiting == 0 or self._entries_waiting + len(entries) <= self._entries_waiting_max

    def _may_flush(self) -> bool:
        return self._flushers < FLUSHERS_MAX and bool(self._waiting)

    def _take(self) -> list[Waiting]:
        group = take_group(self._waiting)
        self._entries_waiting -= sum(len(call.entries) for call in group)
        self._flushers += 1
        return group

    def _await(self, call: Waiting) -> None:
        while not call.done:
            with self._changed:
                self._changed.wait_for(lambda: call.done or self._may_flush())
                group = [] if call.done else self._take()
            if group:
                self._flush(group)

    def _withdraw(self, call: Waiting) -> None:
        with self._changed:
            if call in self._waiting:
                self._waiting.remove(call)
                self._entries_waiting -= len(call.entries)
            self._changed.notify_all()

    def _flush(self, group: list[Waiting]) -> None:
        """An error that nobody foresaw is the callers' of this group, not the one's who happens to write it."""
        try:
            self._write_group(group)
        except BaseException as error:
            _refuse(group, error)
            if not isinstance(error, Exception):
                raise
        finally:
            with self._changed:
                self._flushers -= 1
                self._changed.notify_all()

    def _write_group(self, group: list[Waiting]) -> None:
        while group:
            try:
                answers = self._write(entries_of(group))
            except MeterbookError as error:
                self._fail(group, error)
                return
            if len(group) > 1 and all_in_progress(answers):
                self._write_each(group)
                return
            settled = settle_group(group, answers)
            for call, its_answers in settled.answered:
                call.done.append(its_answers)
            group = settled.again

    def _fail(self, group: list[Waiting], error: MeterbookError) -> None:
        """What failed for a group may be one call's fault: each is written alone, which its keys make safe."""
        if len(group) > 1:
            self._write_each(group)
        else:
            _refuse(group, error)

    def _write_each(self, group: list[Waiting]) -> None:
        for position, call in enumerate(group):
            self._write_group([call])
            (result,) = call.done
            if isinstance(result, LedgerUnavailable):  # nobody's fault: the others need not each find it out
                _refuse(group[position + 1 :], result)
                return


def _refuse(group: list[Waiting], error: BaseException) -> None:
    for call in group:
        if not call.done:
            call.done.append(error)
