"""The client: opened, used from as many tasks or threads as there are, closed with a word of what is left."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from meterbook.client.calls import Call
from meterbook.client.holding import HoldingCalls, check_choice
from meterbook.client.line import Limits, Line
from meterbook.client.queues import Bounds, Memory
from meterbook.client.reading import ReadingCalls
from meterbook.client.recording import RecordingCalls
from meterbook.client.results import Refusal, Spooled
from meterbook.client.sender import Batching, Sender
from meterbook.client.sending import Opened, Settings, WhenUnreachable
from meterbook.client.spool import Spool
from meterbook.client.waiting_asyncio import in_thread
from meterbook.core.arguments import check_whole
from meterbook.errors import EntriesRefused, InvalidRequest, InvalidUsage, Problem, Undelivered

MIB = 1024 * 1024
COUNT_MAX = 10_000_000
WAITING_BYTES_MAX = 1024 * 1024 * MIB
SECONDS_MAX = 86_401


class AsyncClient(RecordingCalls, HoldingCalls, ReadingCalls):
    """Talks to one meterbook server. Safe for concurrent use, in the process that opened it.

    `spool`: a folder, of this client alone, for what can't be sent: calls that record then say "spooled" instead of failing. `timeout_s`
    bounds one try, `deadline_s` all tries of a call (2 s with a spool, 10 s without), `check_deadline_s` those of a check or a hold,
    `close_s` how long closing waits for what is still to be sent. `when_unreachable`: what checks and holds answer when the server can't.
    `batch_…` is of what is sent later; `waiting_…_max` bound it, on disk or in memory. `on_refused` is told, beside the callers, of each
    call that was refused when it was sent later.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        spool: str | Path | None = None,
        timeout_s: float = 5.0,
        connect_timeout_s: float = 2.0,
        deadline_s: float | None = None,
        check_deadline_s: float = 2.0,
        close_s: float = 5.0,
        when_unreachable: WhenUnreachable = "deny",
        batch_entries_max: int = 500,
        batch_wait_s: float = 0.05,
        waiting_entries_max: int = 100_000,
        waiting_bytes_max: int = 64 * MIB,
        on_refused: Callable[[Refusal], object] | None = None,
    ) -> None:
        check_choice(when_unreachable)
        _check_numbers(
            {"timeout_s": timeout_s, "connect_timeout_s": connect_timeout_s, "check_deadline_s": check_deadline_s},
            {"deadline_s": deadline_s or 0, "close_s": close_s, "batch_wait_s": batch_wait_s},
            {
                "batch_entries_max": (batch_entries_max, COUNT_MAX),
                "waiting_entries_max": (waiting_entries_max, COUNT_MAX),
                "waiting_bytes_max": (waiting_bytes_max, WAITING_BYTES_MAX),
            },
        )
        if inspect.iscoroutinefunction(on_refused):
            raise InvalidUsage(
                [Problem(None, "on_refused", "invalid_callback", "pass a plain function: nobody awaits it")]
            )
        super().__init__(
            Settings(
                None if spool is None else Path(spool),
                timeout_s,
                connect_timeout_s,
                deadline_s if deadline_s is not None else 10.0 if spool is None else 2.0,
                check_deadline_s,
                close_s,
                when_unreachable,
                batch_entries_max,
                batch_wait_s,
                waiting_entries_max,
                waiting_bytes_max,
            )
        )
        self._address = url, key
        self._on_refused = on_refused

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """What `async with` does. Raises `SpoolTaken`, `SpoolUnreadable`, `SpoolFailed`, `InvalidUsage`; the server need not be there."""
        if self._opened is not None and self._opened.process == os.getpid():
            raise InvalidRequest("this client is open already; whoever closes it closes it for all")
        settings = self._settings
        line = Line(*self._address, Limits(settings.timeout_s, settings.connect_timeout_s))
        bounds = Bounds(settings.waiting_entries_max, settings.waiting_bytes_max)
        queue = Memory(bounds) if settings.spool is None else await in_thread(Spool, settings.spool, bounds)
        sender = Sender(line, queue, Batching(settings.batch_entries_max, settings.batch_wait_s), self._on_refused)
        self._opened = Opened(line, queue, sender, os.getpid())
        sender.start()

    async def close(self) -> Spooled:
        """Sends what it can, and says what is left: on disk, for the next client of this folder, where no absent server is waited for.

        What was only in memory is then gone, and raised as `Undelivered`; what was refused and not told, as `EntriesRefused`.
        """
        opened = self._mine()
        try:
            await opened.sender.drain(0.0 if self._has_spool and opened.line.is_gone else self._settings.close_s)
        finally:
            await opened.sender.stop()
            self._opened = None
            await opened.line.aclose()
            await in_thread(opened.queue.close)
            left, refused = self._standing(opened), opened.sender.take_untold()
        calls = opened.queue.with_money() if isinstance(opened.queue, Memory) else []
        if calls:
            raise Undelivered(left, [body for call in calls for body in call.bodies]) from _told(refused)
        if refused:
            raise EntriesRefused(refused)
        return left

    async def flush(self, seconds: float = 10.0) -> Spooled:
        """Sends what waits, now, and says what is left after so long. Raises `EntriesRefused` for what was refused and not told yet."""
        opened = self._open()
        await opened.sender.drain(seconds)
        refused = opened.sender.take_untold()
        if refused:
            raise EntriesRefused(refused)
        return self._standing(opened)

    def spooled(self) -> Spooled:
        """What waits to be sent: how many, since when, and how much money."""
        return self._standing(self._open())

    def refused(self) -> list[Refusal]:
        """What a spool keeps of refused calls, oldest first, until `resend_refused` or `forget_refused`."""
        return self._open().queue.refusals()

    async def resend_refused(self) -> int:
        """Every refused call goes to the end of what waits: somebody has mended what it was refused for. How many there were."""
        opened = self._open()
        refused = await in_thread(opened.queue.refusals)
        await in_thread(opened.queue.append, [Call(each.path, each.body, each.said_at) for each in refused])
        await in_thread(opened.queue.forget_refusals, len(refused))
        opened.sender.told()
        return len(refused)

    async def forget_refused(self) -> int:
        """They will never be recorded, and somebody has decided so. How many there were."""
        queue = self._open().queue
        refused = await in_thread(queue.refusals)
        await in_thread(queue.forget_refusals, len(refused))
        return len(refused)

    def _standing(self, opened: Opened) -> Spooled:
        return replace(opened.queue.standing(), trouble=opened.line.trouble)


def _check_numbers(
    above_zero: Mapping[str, float], from_zero: Mapping[str, float], counts: Mapping[str, tuple[int, int]]
) -> None:
    """Seconds, and counts with the most that each may be. Raises `InvalidUsage`."""
    for name, (count, highest) in counts.items():
        check_whole(name, count, 1, highest)
    wrong = [name for name, value in above_zero.items() if not _is_seconds(value) or not value]
    wrong += [name for name, value in from_zero.items() if not _is_seconds(value)]
    if wrong:
        advice = "pass seconds, at most a day; tries need more than 0"
        raise InvalidUsage([Problem(None, name, "invalid_number", advice) for name in wrong])


def _is_seconds(value: object) -> bool:
    """NaN is none: no time is ever beyond it."""
    return isinstance(value, int | float) and 0 <= value < SECONDS_MAX


def _told(refused: Sequence[Refusal]) -> EntriesRefused | None:
    return EntriesRefused(refused) if refused else None
