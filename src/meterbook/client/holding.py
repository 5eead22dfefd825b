"""Checks and holds: what happens when the server can't answer is the caller's explicit choice, and to deny unless it is made."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from decimal import Decimal
from typing import Any

from meterbook.client import wire
from meterbook.client.calls import RELEASE, SETTLE, Body, Call, entry_call, new_key, other_call
from meterbook.client.recording import receipt
from meterbook.client.results import SettleReceipt
from meterbook.client.sending import Sending, WhenUnreachable, now
from meterbook.client.waiting_asyncio import INTERRUPTED
from meterbook.core.admission import Admission, unreachable
from meterbook.core.arguments import check_whole
from meterbook.core.entries import Usage, check_entries, check_parsed, check_party, check_text
from meterbook.core.ledgers import HoldState
from meterbook.core.money import parse_above_zero
from meterbook.errors import Denied, InvalidUsage, Problem, Unavailable, UnknownHold

CHOICES = ("deny", "allow")
TTL_S_MAX = 86_400
SOMEBODY = "(the hold's actor)"
"""Stands for whom the hold names while the rest of what is settled is looked at."""


class HoldingCalls(Sending):
    """May this work begin (BEHAVIOUR §8)?"""

    async def check(
        self, actor: str, *, workspace: str | None = None, when_unreachable: WhenUnreachable | None = None
    ) -> Admission:
        """Reserves nothing. A server that can't answer: denied (`unreachable`, retryable), or with "allow" allowed (`allowed_unreachable`).

        It can't answer, too, when it could not look (`check_failed`). What it does answer holds, whatever was chosen.
        """
        check_party(actor, workspace)
        choice = self._choice(when_unreachable)
        line = self._open().line
        said = {"actor": actor} | ({} if workspace is None else {"workspace": workspace})
        if line.is_away:
            return unreachable(line.trouble or "it is away", allowed=choice == "allow")
        try:
            answer = await line.ask("POST", "/v1/checks", said, wire.admission, self._settings.check_deadline_s)
        except Unavailable as error:
            return unreachable(str(error), allowed=choice == "allow")
        return unreachable(answer.message, allowed=True) if _could_not_look(answer, choice) else answer

    @asynccontextmanager
    async def hold(
        self,
        actor: str,
        *,
        amount: str | Decimal | int,
        hold_id: str | None = None,
        ttl_s: int = 600,
        workspace: str | None = None,
        when_unreachable: WhenUnreachable | None = None,
    ) -> AsyncIterator["AsyncHold"]:
        """Sets money aside until it is settled, released or `ttl_s` have passed; leaving unsettled releases it. Raises `Denied`.

        With a `hold_id` of the caller's, leaving does not: it may be the hold of another process, or of the same work's next try.
        A server that can't answer: `Denied` (`unreachable`, retryable); with "allow" the block begins all the same (`is_granted` False),
        nothing bounds what it costs, and its settle is recorded.
        """
        check_party(actor, workspace)
        check_parsed(parse_above_zero, amount)
        check_whole("ttl_s", ttl_s, 1, TTL_S_MAX)
        choice = self._choice(when_unreachable)
        wanted_id = new_key() if hold_id is None else check_text("hold_id", hold_id)
        said = {"actor": actor, "amount": amount, "hold_id": wanted_id, "ttl_s": ttl_s, "workspace": workspace}
        try:
            state, why = await self._place(other_call("/v1/holds", said, now()))
        except INTERRUPTED:
            if hold_id is None:
                await self._let_go(wanted_id)
            raise
        if state is None and choice == "deny":
            if hold_id is None:
                await self._let_go(wanted_id)
            raise Denied(unreachable(why, allowed=False))
        held = AsyncHold(self, wanted_id, actor, workspace, state)
        try:
            yield held
        finally:
            if not held.ended and hold_id is None:
                await held.release()

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
    ) -> SettleReceipt:
        """Records the real cost and ends the hold, together; spooled when the server is away. Raises `UnknownHold`, `KeyConflict`."""
        check_text("hold_id", hold_id)
        said = _cost(amount, source, description, event_key, category, execution, occurred_at)
        return await self._settle(hold_id, said, None)

    async def release(self, hold_id: str) -> bool:
        """True if it ended now; False also when the server is away and the release waits in the spool. Raises `UnknownHold`."""
        check_text("hold_id", hold_id)
        return bool(await self._now_or_later(other_call(RELEASE, {"hold_id": hold_id}, now()), wire.released))

    # -------------------------------------------------------------------------------------------------------------- private

    def _choice(self, named: WhenUnreachable | None) -> WhenUnreachable:
        choice = self._settings.when_unreachable if named is None else named
        check_choice(choice)
        return choice

    async def _place(self, call: Call) -> tuple[HoldState | None, str]:
        """None, and why: the server could not say. Raises `Denied` when it could."""
        line = self._open().line
        if line.is_away:
            return None, line.trouble or "it is away"
        try:
            return await line.ask("POST", call.path, call.body, wire.hold, self._settings.check_deadline_s), ""
        except Unavailable as error:
            return None, str(error)
        except Denied as denied:
            if denied.admission.code != "check_failed":
                raise
            return None, str(denied)

    async def _let_go(self, hold_id: str) -> None:
        """A hold whose answer was lost may have been granted: it is released when the server is back, or runs out by itself."""
        with suppress(Unavailable):
            await self._later(other_call(RELEASE, {"hold_id": hold_id}, now()))

    async def _settle(self, hold_id: str, said: Body, party: tuple[str, str | None] | None) -> SettleReceipt:
        """`party` of a hold that was asked for here: whose cost it is, if the server never granted it."""
        key = said["event_key"] or f"hold:{hold_id}"
        actor, workspace = party or (SOMEBODY, None)
        entry = Usage(actor, **{**said, "event_key": key, "workspace": workspace})
        check_entries([entry], "XXX")
        moment = now()
        instead: Any = None if party is None else entry_call(entry, moment).body
        call = other_call(SETTLE, {**said, "event_key": key, "hold_id": hold_id}, moment, instead)
        try:
            settled = await self._now_or_later(call, wire.settled)
        except UnknownHold:
            if party is None:
                raise
            alone = call.as_entry()
            recorded = await self._now_or_later(alone, wire.recorded)
            return SettleReceipt(None if recorded is None else "no_hold", receipt(alone, recorded))
        if settled is None:
            return SettleReceipt(None, receipt(call, None))
        state, recorded = settled
        return SettleReceipt(state, receipt(call, recorded))


class AsyncHold:
    """Money set aside, inside `async with client.hold(…)`. `state` None: allowed without the server."""

    def __init__(
        self, client: HoldingCalls, hold_id: str, actor: str, workspace: str | None, state: HoldState | None
    ) -> None:
        self._client = client
        self._party = actor, workspace
        self.id = hold_id
        self.state = state
        self.ended = False

    @property
    def is_granted(self) -> bool:
        """False: the server could not be asked, and the caller chose to go on."""
        return self.state is not None

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
    ) -> SettleReceipt:
        """Records the real cost, and ends the hold if there is one."""
        said = _cost(amount, source, description, event_key, category, execution, occurred_at)
        settled = await self._client._settle(self.id, said, self._party)  # noqa: SLF001  a part of it
        self.ended = True
        return settled

    async def release(self) -> bool:
        """True if it ended now. A server that is away, or knows no such hold, is no reason to fail: it runs out by itself."""
        self.ended = True
        try:
            return await self._client.release(self.id)
        except (Unavailable, UnknownHold):
            return False


def _cost(
    amount: str | Decimal | int,
    source: str,
    description: str,
    event_key: str | None,
    category: str,
    execution: str | None,
    occurred_at: datetime | None,
) -> Body:
    return {
        "amount": amount, "source": source, "description": description, "category": category, "execution": execution,
        "event_key": event_key, "occurred_at": occurred_at,
    }  # fmt: skip


def check_choice(choice: object) -> None:
    """Raises `InvalidUsage`: a misspelt choice is none."""
    if choice not in CHOICES:
        raise InvalidUsage(
            [Problem(None, "when_unreachable", "invalid_choice", f'{choice!r} is neither "deny" nor "allow"')]
        )


def _could_not_look(answer: Admission, choice: WhenUnreachable) -> bool:
    return choice == "allow" and not answer.allowed and answer.code == "check_failed"
