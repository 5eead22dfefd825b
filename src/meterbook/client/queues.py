"""What waits to be sent: in memory here, on disk in spool.py. Both hand out calls from the front, and keep what is refused apart."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from logging import getLogger
from threading import Lock
from typing import Protocol
from weakref import finalize

from meterbook.client.calls import RELEASE, Call, Waiting, encode, exposure_by_actor, waiting
from meterbook.client.results import Refusal, Spooled
from meterbook.core.money import total_of
from meterbook.errors import ClientClosed, Overloaded

LOG = getLogger("meterbook.client")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of what waits and of what was refused, together."""

    entries_max: int
    bytes_max: int


class Queue(Protocol):
    """Safe for concurrent use by those who append and the one who sends."""

    def append(self, calls: Sequence[Call]) -> None:
        """All of them, or none: then `Overloaded`, `SpoolFull` or `SpoolFailed`."""

    def peek(self, skip: int, count: int) -> list[Call]:
        """From the front, those to be passed over left out."""

    def finish(self, passed: int, again: Sequence[Call], refused: Sequence[Refusal]) -> None:
        """So many leave the front; those of `again` go to the end, whatever the bounds; the refused are kept apart first."""

    def standing(self) -> Spooled:
        """What waits now."""

    def refusals(self) -> list[Refusal]:
        """What was refused, oldest first."""

    def forget_refusals(self, count: int) -> None:
        """The oldest of them: somebody was told."""

    def close(self) -> None:
        """What is appended afterwards is refused, by `ClientClosed`."""

    def __len__(self) -> int:
        """How many calls wait."""


@dataclass(slots=True)
class Tally:
    """Of what waits: sizes and money, without the calls themselves."""

    bounds: Bounds
    waiting: deque[Waiting] = field(default_factory=deque)
    entries: int = 0
    bytes: int = 0

    def add(self, one: Waiting) -> None:
        self.waiting.append(one)
        self.entries += len(one.shares)
        self.bytes += one.size

    def drop_first(self) -> None:
        one = self.waiting.popleft()
        self.entries -= len(one.shares)
        self.bytes -= one.size

    def has_room(self, more: Sequence[Waiting], refused_bytes: int) -> bool:
        entries = self.entries + sum(len(one.shares) for one in more)
        size = self.bytes + refused_bytes + sum(one.size for one in more)
        return entries <= self.bounds.entries_max and size <= self.bounds.bytes_max


def standing_of(waiting_now: Sequence[Waiting], refused: int) -> Spooled:
    by_actor = exposure_by_actor(waiting_now)
    return Spooled(
        calls=len(waiting_now),
        entries=sum(len(one.shares) for one in waiting_now),
        bytes=sum(one.size for one in waiting_now),
        oldest=min((one.said_at for one in waiting_now), default=None),
        exposure=total_of(by_actor.values()),
        by_actor=by_actor,
        refused=refused,
    )


def refusal_of(call: Call, code: str, message: str, problem: object = None) -> Refusal:
    said = dict(problem) if isinstance(problem, dict) else {}
    return Refusal(call.path, call.body, code, message, call.said_at, datetime.now(UTC), said)


class Memory:
    """A queue that ends with its process: what waits in one that nobody closed is at least logged then."""

    def __init__(self, bounds: Bounds) -> None:
        self._lock = Lock()
        self._calls: deque[Call] = deque()
        self._tally = Tally(bounds)
        self._refused: list[Refusal] = []
        self._refused_bytes = 0
        self._is_closed = False
        self._unclosed = finalize(self, _tell_lost, self._calls)

    def append(self, calls: Sequence[Call]) -> None:
        more = [waiting(call, len(encode(call))) for call in calls]
        with self._lock:
            if self._is_closed:
                raise ClientClosed
            if not self._tally.has_room(more, self._refused_bytes):
                raise Overloaded(
                    "more is waiting to be sent than this client may keep in memory; nothing of this call was kept"
                )
            self._add(calls, more)

    def peek(self, skip: int, count: int) -> list[Call]:
        with self._lock:
            return [self._calls[n] for n in range(skip, min(skip + count, len(self._calls)))]

    def finish(self, passed: int, again: Sequence[Call], refused: Sequence[Refusal]) -> None:
        with self._lock:
            self._refused += refused
            self._refused_bytes += sum(len(str(one.body)) for one in refused)
            self._add(again, [waiting(call, len(encode(call))) for call in again])
            for _ in range(passed):
                self._calls.popleft()
                self._tally.drop_first()

    def standing(self) -> Spooled:
        with self._lock:
            now, refused = list(self._tally.waiting), len(self._refused)
        return standing_of(now, refused)

    def refusals(self) -> list[Refusal]:
        with self._lock:
            return list(self._refused)

    def forget_refusals(self, count: int) -> None:
        with self._lock:
            self._refused_bytes -= sum(len(str(one.body)) for one in self._refused[:count])
            del self._refused[:count]

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
        self._unclosed.detach()

    def with_money(self) -> list[Call]:
        with self._lock:
            return _with_money(self._calls)

    def __len__(self) -> int:
        return len(self._calls)

    def _add(self, calls: Sequence[Call], more: Sequence[Waiting]) -> None:
        self._calls.extend(calls)
        for one in more:
            self._tally.add(one)


def _with_money(calls: Iterable[Call]) -> list[Call]:
    """A hold that was not released runs out by itself."""
    return [call for call in calls if call.path != RELEASE]


def _tell_lost(calls: Sequence[Call]) -> None:
    lost = _with_money(calls)
    if lost:
        LOG.error("a client was never closed, and %d calls are lost: %s", len(lost), [call.body for call in lost])
