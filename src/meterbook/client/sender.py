"""Sends what waits, in its order, beside the callers: entries with keys of their own together, everything else one by one.

What the server refuses for good is put aside and tells why. What it can't take now, while it takes others, goes to the end: found by
passing over more and more of the front until something is taken. While nothing is taken, nothing moves.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from logging import getLogger
from typing import Any

from meterbook.client import wire
from meterbook.client.answers import Fault, NotTaken
from meterbook.client.calls import BATCH, RELEASE, SETTLE, Call
from meterbook.client.line import Line
from meterbook.client.pauses import Pauses
from meterbook.client.queues import Memory, Queue, refusal_of
from meterbook.client.results import Refusal
from meterbook.client.spool import Spool
from meterbook.client.waiting_asyncio import Background, Signal, in_thread
from meterbook.errors import InvalidUsage, SpoolFailed, SpoolFull, UnknownHold

OnRefused = Callable[[Refusal], object]
LOG = getLogger("meterbook.client")
UNTOLD_MAX = 1000
"""Of a spool, which keeps them all: the latest are raised by `flush` and `close`."""
IDLE_S = 60.0
LOOK_EVERY_S = 0.02
HURRY_EVERY_S = 0.5
"""While somebody waits for it, the server is asked so often, whatever failed before."""
AHEAD = "occurred_in_the_future"


class Batching:
    """How many entries go together, and how long the first of them waits for others."""

    def __init__(self, entries_max: int, wait_s: float) -> None:
        self.entries_max = entries_max
        self.wait_s = wait_s


class Sender:
    """Works from `start` to `stop`."""

    def __init__(self, line: Line, queue: Queue, batching: Batching, on_refused: OnRefused | None) -> None:
        self._line = line
        self._queue = queue
        self._batching = batching
        self._on_refused = on_refused
        self._appended, self._hurry = Signal(), Signal()
        self._background = Background(self._run)
        self._ending = False
        self._is_working = self._is_stuck = False
        self._skip, self._count = 0, batching.entries_max
        self._pauses = Pauses()
        self._untold: deque[Refusal] = deque(
            maxlen=UNTOLD_MAX if isinstance(queue, Spool) and on_refused is None else None
        )

    def start(self) -> None:
        self._background.start()

    async def stop(self) -> None:
        """Returns when the request in work has been answered or given up."""
        self._ending = True
        self.hurry()
        await self._background.join()

    def raise_failure(self) -> None:
        """What ended the work before its time, such as a callback that raised."""
        self._background.raise_failure()

    def told(self) -> None:
        """Something waits."""
        self._appended.set()

    def hurry(self) -> None:
        """Try now, whatever failed before."""
        self._hurry.set()
        self._appended.set()

    async def drain(self, seconds: float) -> bool:
        """Whether everything was sent within this time."""
        until = time.monotonic() + seconds
        hurry_at = 0.0
        pause = Signal()
        while (len(self._queue) or self._is_working) and time.monotonic() < until:
            self.raise_failure()
            if time.monotonic() >= hurry_at:
                self.hurry()
                hurry_at = time.monotonic() + HURRY_EVERY_S
            await pause.wait(LOOK_EVERY_S)
        self.raise_failure()
        return not len(self._queue)

    def take_untold(self) -> list[Refusal]:
        """Refused since somebody was told last, where no callback is. In a spool they stay; in memory nothing else keeps them."""
        untold = list(self._untold) if self._on_refused is None else []
        self._forget(len(untold))
        return untold

    def _forget(self, count: int) -> None:
        for _ in range(count):
            self._untold.popleft()
        if isinstance(self._queue, Memory):
            self._queue.forget_refusals(count)

    # ---------------------------------------------------------------------------------------------------------------- rounds

    async def _run(self) -> None:
        while not self._ending:
            if not len(self._queue):
                self._appended.clear()
                if not len(self._queue):
                    await self._appended.wait(IDLE_S)
                await self._gather()
                continue
            self._is_working = True
            self._appended.clear()
            pause_s = await self._try_round()
            self._is_working = False
            if pause_s and not self._ending:
                await (self._appended if self._is_stuck else self._hurry).wait(pause_s)
            self._hurry.clear()

    async def _try_round(self) -> float:
        """A disk that does not take what became of a round is told; the round comes again, and is replayed."""
        self._is_stuck = False
        try:
            return await self._round()
        except (SpoolFull, SpoolFailed) as error:
            self._line.trouble = f"{error.code}: {error}"
            LOG.warning("%s", error)
            return self._pauses.next_s()

    async def _gather(self) -> None:
        """A moment for company, unless a batch is there already."""
        if 0 < len(self._queue) < self._batching.entries_max:
            await self._hurry.wait(self._batching.wait_s)

    async def _round(self) -> float:
        """One request. How long to wait before the next."""
        calls = _together(await in_thread(self._queue.peek, self._skip, self._count))
        if not calls:
            self._skip = 0
            return 0.0
        answer = await self._send(calls)
        if isinstance(answer, NotTaken):
            return await self._not_taken(calls, answer)
        await self._taken(calls, answer)
        self._pauses = Pauses()
        return 0.0

    async def _send(self, calls: Sequence[Call]) -> Any:
        first = calls[0]
        if first.may_join:
            bodies = [call.body for call in calls]
            return await self._line.try_once(
                "POST", BATCH, bodies, lambda said: wire.batch_results(said, len(bodies)), partial=True
            )
        return await self._line.try_once("POST", first.path, first.body, READERS.get(first.path, wire.recorded))

    async def _taken(self, calls: Sequence[Call], answer: Any) -> None:
        again: list[Call] = []
        refused: list[Refusal] = []
        if calls[0].may_join:
            for call, result in zip(calls, answer, strict=True):
                _sort(call, result, again, refused)
        await self._finish(calls, again, refused)
        self._count = min(self._batching.entries_max, self._count * 2)

    async def _finish(self, calls: Sequence[Call], again: Sequence[Call], refused: Sequence[Refusal]) -> None:
        """What was passed over goes to the end: the server takes others."""
        passed_over = await in_thread(self._queue.peek, 0, self._skip)
        await in_thread(self._queue.finish, self._skip + len(calls), [*passed_over, *again], refused)
        self._skip = 0
        for each in refused:
            LOG.warning("refused for good: %s", each)
            self._untold.append(each)
        while self._untold and self._on_refused is not None:
            self._on_refused(self._untold[0])
            self._forget(1)

    async def _not_taken(self, calls: Sequence[Call], answer: NotTaken) -> float:
        match answer.fault:
            case Fault.REFUSED:
                await self._refused(calls, answer)
                return 0.0
            case Fault.TOO_LARGE:
                await self._too_large(calls, answer)
                return 0.0
            case Fault.STUCK | Fault.FORBIDDEN:
                return self._stuck(calls, answer)
            case _:
                self._skip, self._count = 0, self._batching.entries_max
                if self._pauses.failed:
                    self._line.give_up(answer)
                return self._pauses.next_s(answer.asked_s)

    async def _refused(self, calls: Sequence[Call], answer: NotTaken) -> None:
        if len(calls) > 1:  # no answer to a batch that takes what is sound: each is asked for itself
            self._count = 1
            return
        (call,) = calls
        if isinstance(answer.error, UnknownHold) and call.instead is not None:
            await self._finish(calls, [call.as_entry()], [])
        elif isinstance(answer.error, UnknownHold) and call.path == RELEASE:
            await self._finish(calls, [], [])
        elif call.is_stamped and is_ahead(answer.error):
            await self._finish(calls, [call.unstamped()], [])
        else:
            await self._finish(calls, [], [refusal_of(call, answer.error.code, str(answer.error), answer.problem)])

    async def _too_large(self, calls: Sequence[Call], answer: NotTaken) -> None:
        if len(calls) > 1:
            self._count = max(1, len(calls) // 2)
        else:
            await self._finish(calls, [], [refusal_of(calls[0], answer.error.code, str(answer.error), answer.problem)])

    def _stuck(self, calls: Sequence[Call], answer: NotTaken) -> float:
        """The first to be asked alone, and the one behind it, are asked at once: most often only one is stuck.

        The pause is over when something comes: the server may take that.
        """
        self._is_stuck = True
        if len(calls) > 1 or self._count > 1:
            self._count = 1
            return 0.0
        self._skip = max(1, self._skip * 2)
        if self._skip >= len(self._queue):
            self._skip = 0
        return 0.0 if self._skip == 1 else self._pauses.next_s(answer.asked_s)


READERS: dict[str, Callable[[Any], Any]] = {SETTLE: wire.settled, RELEASE: wire.released}


def is_ahead(error: BaseException) -> bool:
    """Nothing is wrong but the times: the clock of whoever stamped them is ahead."""
    return isinstance(error, InvalidUsage) and {problem.code for problem in error.problems} == {AHEAD}


def _together(calls: Sequence[Call]) -> list[Call]:
    """Those from the front that fit into one request. A key is in it once: of two, the second is to meet the first in the ledger."""
    if not calls or not calls[0].may_join:
        return list(calls[:1])
    chosen: list[Call] = []
    keys: set[str | None] = set()
    for call in calls:
        if not call.may_join or call.event_keys[0] in keys:
            break
        chosen.append(call)
        keys.add(call.event_keys[0])
    return chosen


def _sort(call: Call, result: Any, again: list[Call], refused: list[Refusal]) -> None:
    if result["outcome"] == "conflict":
        message = "its key was used for something else"
        refused.append(refusal_of(call, "key_conflict", message, {"conflict": result.get("conflict")}))
    elif result["outcome"] == "refused":
        problem = result.get("problem") or {}
        if call.is_stamped and problem.get("code") == AHEAD:
            again.append(call.unstamped())
        else:
            message = f"{problem.get('field', 'entry')}: {problem.get('message', 'was refused')}"
            refused.append(refusal_of(call, problem.get("code", "refused"), message, problem))
