"""The promised calls about holds. Those that wait for one entity's gate are decided together, and those that end share a commit."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

from psycopg import AsyncConnection

from meterbook.book.access import LedgerAccess, Opened, inside
from meterbook.book.groups import GROUP_KEY_WAIT_MS
from meterbook.book.lanes_asyncio import Lanes
from meterbook.core.admission import check_failed
from meterbook.core.arguments import check_limit
from meterbook.core.entries import check_party
from meterbook.core.holding import HoldTerms, Placed
from meterbook.core.ledgers import HoldState
from meterbook.errors import AttributionUnavailable, Denied, LedgerUnavailable, MeterbookError, Unavailable
from meterbook.operations.attribute_usage import ATTEMPTS_MAX, resolve_attribution
from meterbook.operations.hold_spend import GateBusy, HoldAnswer, HoldIdTaken, check_hold, find_same_hold, hold_spends
from meterbook.operations.settle_hold import (
    Ended,
    Ending,
    Settled,
    Settlement,
    Unended,
    check_release,
    check_settle,
    end_hold,
    end_holds,
)
from meterbook.postgres import holds
from meterbook.postgres.borrowed import borrowed
from meterbook.postgres.underlying_asyncio import CallersConnection

HOLD_TTL_S = 600
HOLDS_PER_LIST_MAX = 1000
PAYERS_REMEMBERED_MAX = 10_000
ENDINGS = 0
"""The one lane of all endings: larger groups are worth more than the next group's work during this one's commit (see ADR 0014)."""
NOBODYS_FAULT = (LedgerUnavailable, GateBusy)
"""What fails all of a group alike: its calls need not each find it out."""


class HoldingCalls(LedgerAccess):
    """Money set aside for work that has not finished (BEHAVIOUR §8)."""

    def __init__(self, opened: Opened) -> None:
        super().__init__(opened)
        self._holding: Lanes[HoldTerms, Placed | None] = Lanes(self._hold_group, let_go=self._let_go)
        self._ending: Lanes[Ending, Ended | None] = Lanes(self._end_group)
        self._payers: dict[tuple[str, str | None], int] = {}

    @asynccontextmanager
    async def hold(
        self,
        actor: str,
        *,
        amount: str | Decimal | int,
        hold_id: str | None = None,
        ttl_s: int = HOLD_TTL_S,
        workspace: str | None = None,
    ) -> AsyncIterator["Hold"]:
        """Sets money aside until it is settled, released or `ttl_s` have passed; leaving unsettled releases it. Raises `Denied`.

        A `hold_id` that was there already is the same hold, and stays when this block is left: whoever it was granted to may still work.
        """
        placed = await self._ask(actor, amount, hold_id, ttl_s, workspace)
        held = Hold(self, placed.state)
        try:
            yield held
        finally:
            if placed.is_new and not held.ended:
                await self.release(held.id)

    async def place_hold(
        self,
        actor: str,
        *,
        amount: str | Decimal | int,
        hold_id: str | None = None,
        ttl_s: int = HOLD_TTL_S,
        workspace: str | None = None,
    ) -> HoldState:
        """The same without a block: `settle` and `release` end it, from whatever process. The same `hold_id` again is the same hold."""
        return (await self._ask(actor, amount, hold_id, ttl_s, workspace)).state

    async def _ask(
        self, actor: str, amount: str | Decimal | int, hold_id: str | None, ttl_s: int, workspace: str | None
    ) -> Placed:
        check_party(actor, workspace)
        wanted_id = uuid4().hex if hold_id is None else hold_id
        money = check_hold(amount, wanted_id, ttl_s)
        wanted = HoldTerms(actor, workspace, money, wanted_id, ttl_s, self._billing, is_named=hold_id is not None)
        try:
            return await self._place(wanted)
        except Unavailable as error:
            raise Denied(check_failed(str(error))) from error

    async def _let_go(self, wanted: HoldTerms, placed: Placed | None) -> None:
        """Nobody knows the id of a hold whose caller was cancelled while it was granted, unless he gave it: he may ask again then."""
        if placed is not None and not wanted.is_named:
            with suppress(MeterbookError):  # it runs out by itself
                await self.release(placed.state.id)

    async def settle(
        self,
        hold_id: str,
        *,
        amount: str | Decimal | int,
        source: str,
        description: str,
        event_key: str | None = None,
        category: str = "model",
        execution: str | None = None,
        occurred_at: datetime | None = None,
        conn: CallersConnection | None = None,
    ) -> Settled:
        """Records the real cost and ends the hold, together; a dead one's usage is recorded too. Raises `UnknownHold`, `KeyConflict`."""
        said = Settlement(amount, source, description, event_key, category, execution, occurred_at)
        ending = check_settle(hold_id, said, self._catalog.currency)
        if conn is None:
            settled = await self._end(ending)
        else:
            own = await borrowed(conn)
            async with inside(own):
                settled = await end_hold(own, ending, self._catalog.currency, self._attribute, self._at())
        assert isinstance(settled, Settled)  # noqa: S101  the answer to a settle
        return settled

    async def release(self, hold_id: str) -> bool:
        """True if it ended now. Raises `UnknownHold`."""
        return bool(await self._end(check_release(hold_id)))

    async def holds(self, entity: str, *, limit: int = 100) -> list[HoldState]:
        """Newest first, ended ones too."""
        check_limit(limit, HOLDS_PER_LIST_MAX)
        async with self._pool.connection() as conn:
            entity_id = await self._entity_id(conn, entity)
            return await holds.list_holds(conn, entity_id, self._at(), limit)

    # -------------------------------------------------------------------------------------------------------------- private

    async def _drain_holds(self) -> None:
        await self._holding.drain()
        await self._ending.drain()

    async def _place(self, wanted: HoldTerms) -> Placed:
        """Who pays is only guessed here, from the last time: under the gate it is looked up, and another payer's gate comes next."""
        for _ in range(ATTEMPTS_MAX):
            entity_id = self._payers.get(wanted.party)
            if entity_id is None:
                async with self._pool.connection() as conn:
                    known = await find_same_hold(conn, wanted, self._at())
                    if known is not None:
                        return known
                    entity_id = await self._find_payer(conn, wanted)
            hold = await self._holding.submit(entity_id, wanted)
            if hold is not None:
                return hold
            if self._payers.get(wanted.party) == entity_id:
                del self._payers[wanted.party]
        raise AttributionUnavailable

    async def _find_payer(self, conn: AsyncConnection[Any], wanted: HoldTerms) -> int:
        attribute = self._attribute_on(conn)
        payer = await resolve_attribution(conn, attribute, wanted.actor, wanted.workspace, self._at())
        if len(self._payers) >= PAYERS_REMEMBERED_MAX:
            self._payers.clear()
        self._payers[wanted.party] = payer.entity_id
        return payer.entity_id

    async def _hold_group(self, entity_id: int, group: Sequence[HoldTerms]) -> Sequence[HoldAnswer | MeterbookError]:
        """Together; what fails for a group may be one call's fault, so that each is decided alone then."""
        for _ in range(ATTEMPTS_MAX):
            try:
                async with self._pool.connection() as conn, conn.transaction():
                    return await hold_spends(conn, entity_id, group, self._catalog, self._at())
            except HoldIdTaken:
                continue
            except MeterbookError as error:
                if len(group) == 1 or isinstance(error, NOBODYS_FAULT):
                    return [error] * len(group)
                break
        return [answer for wanted in group for answer in await self._hold_group(entity_id, [wanted])]

    async def _end(self, ending: Ending) -> Ended:
        """In a commit shared with other callers, whom no wait of this one holds up: for it, it goes alone."""
        answer = await self._ending.submit(ENDINGS, ending)
        if answer is not None:
            return answer
        async with self._pool.connection() as own, own.transaction():
            return await end_hold(own, ending, self._catalog.currency, self._attribute_on(own), self._at())

    async def _end_group(self, _: int, group: Sequence[Ending]) -> list[Ended | MeterbookError | None]:
        """Each hold once; of a hold that is ended twice, the second goes after the first."""
        answers: dict[int, Ended | MeterbookError | None] = {}
        left = dict(enumerate(group))
        while left:
            first = {left[n].hold_id: n for n in reversed(left)}
            answers |= await self._end_together({n: left[n] for n in sorted(first.values())})
            left = {n: ending for n, ending in left.items() if n not in answers}
        return [answers[n] for n in range(len(group))]

    async def _end_together(self, endings: dict[int, Ending]) -> dict[int, Ended | MeterbookError | None]:
        """In one transaction. None for those that would hold up or refuse the others; the innocent go again at once."""
        answers: dict[int, Ended | MeterbookError | None] = {}
        left = dict(endings)
        while left:
            try:
                together = await self._try_together(list(left.values()))
            except Unended as unended:
                answers |= dict.fromkeys(unended.guilty_of(list(left)), None)
                left = {n: ending for n, ending in left.items() if n not in answers}
            except LedgerUnavailable as error:
                return answers | dict.fromkeys(left, error)
            except MeterbookError:
                return answers | dict.fromkeys(left, None)
            else:
                return answers | dict(zip(left, together, strict=True))
        return answers

    async def _try_together(self, endings: Sequence[Ending]) -> list[Ended | MeterbookError]:
        async with self._pool.connection() as conn, conn.transaction():
            return await end_holds(conn, endings, self._catalog.currency, self._at(), GROUP_KEY_WAIT_MS)


class Hold:
    """Money set aside, inside `async with book.hold(…)`."""

    def __init__(self, book: HoldingCalls, state: HoldState) -> None:
        self._book = book
        self.state = state
        self.ended = False

    @property
    def id(self) -> str:
        return self.state.id

    async def settle(
        self,
        *,
        amount: str | Decimal | int,
        source: str,
        description: str,
        event_key: str | None = None,
        category: str = "model",
        execution: str | None = None,
        occurred_at: datetime | None = None,
        conn: CallersConnection | None = None,
    ) -> Settled:
        settled = await self._book.settle(
            self.id,
            amount=amount,
            source=source,
            description=description,
            event_key=event_key,
            category=category,
            execution=execution,
            occurred_at=occurred_at,
            conn=conn,
        )
        self.ended = True
        return settled

    async def release(self) -> bool:
        released = await self._book.release(self.id)
        self.ended = True
        return released
