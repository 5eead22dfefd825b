"""Calls that wait at the same moment are answered together, lane by lane: no thread of its own, one of the waiting callers works for all.

Its twin is lanes_asyncio.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Condition, Lock
from typing import Generic, TypeVar

from meterbook.book.groups import CALLS_PER_GROUP_MAX, CALLS_WAITING_MAX
from meterbook.errors import MeterbookError, Overloaded

Asked = TypeVar("Asked")
Said = TypeVar("Said")


@dataclass(slots=True, eq=False)
class _Call(Generic[Asked, Said]):
    """`done` is empty until the caller is told."""

    asked: Asked
    done: list[Said | BaseException]


@dataclass(slots=True, eq=False)
class _Lane(Generic[Asked, Said]):
    """`callers`: how many are in it; the last one out removes it."""

    changed: Condition
    waiting: deque[_Call[Asked, Said]] = field(default_factory=deque)
    working: bool = False
    callers: int = 0


class Lanes(Generic[Asked, Said]):
    """`work` answers the calls of one lane, one group at a time, an answer or an error each; lanes don't wait for one another.

    A caller who is interrupted before the work on his call has begun leaves nothing behind.
    """

    def __init__(
        self,
        work: Callable[[int, Sequence[Asked]], Sequence[Said | MeterbookError]],
        calls_waiting_max: int = CALLS_WAITING_MAX,
        let_go: Callable[[Asked, Said], None] | None = None,  # noqa: ARG002  a thread waits for its answer
    ) -> None:
        self._work = work
        self._calls_waiting_max = calls_waiting_max
        self._lanes: dict[int, _Lane[Asked, Said]] = {}
        self._waiting = 0
        self._lock = Lock()
        self._emptied = Condition(self._lock)

    def submit(self, lane: int, asked: Asked) -> Said:
        """Raises what `work` answered this call, and `Overloaded`."""
        call: _Call[Asked, Said] = _Call(asked, [])
        entered = self._enter(lane, call)
        try:
            self._await(lane, entered, call)
        finally:
            self._leave(lane, entered, call)
        (answer,) = call.done
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def drain(self) -> None:
        """Returns when everything that was submitted has been answered."""
        with self._emptied:
            self._emptied.wait_for(lambda: not self._lanes)

    def _enter(self, lane: int, call: _Call[Asked, Said]) -> _Lane[Asked, Said]:
        with self._lock:
            if self._waiting >= self._calls_waiting_max:
                raise Overloaded
            entered = self._lanes.setdefault(lane, _Lane(Condition(self._lock)))
            entered.callers += 1
            entered.waiting.append(call)
            self._waiting += 1
            return entered

    def _await(self, lane: int, entered: _Lane[Asked, Said], call: _Call[Asked, Said]) -> None:
        while not call.done:
            with entered.changed:
                entered.changed.wait_for(lambda: call.done or not entered.working)
                group = [] if call.done else self._take(entered)
            if group:
                self._answer(lane, entered, group)

    def _take(self, entered: _Lane[Asked, Said]) -> list[_Call[Asked, Said]]:
        waiting = entered.waiting
        group = [waiting.popleft() for _ in range(min(len(waiting), CALLS_PER_GROUP_MAX))]
        self._waiting -= len(group)
        entered.working = True
        return group

    def _leave(self, lane: int, entered: _Lane[Asked, Said], call: _Call[Asked, Said]) -> None:
        with self._emptied:
            if call in entered.waiting:
                entered.waiting.remove(call)
                self._waiting -= 1
            entered.callers -= 1
            if not entered.callers:
                del self._lanes[lane]
                self._emptied.notify_all()

    def _answer(self, lane: int, entered: _Lane[Asked, Said], group: list[_Call[Asked, Said]]) -> None:
        """An error that nobody foresaw is the callers' of this group, not the one's who happens to work."""
        try:
            for call, answer in zip(group, self._work(lane, [call.asked for call in group]), strict=True):
                call.done.append(answer)
        except BaseException as error:
            for call in group:
                if not call.done:
                    call.done.append(error)
            if not isinstance(error, Exception):
                raise
        finally:
            with entered.changed:
                entered.working = False
                entered.changed.notify_all()
