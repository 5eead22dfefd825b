"""The calls of a Book that meet Stripe: webhooks in, the outbox out, the state of both, and what is tried again."""

from typing import Any

from meterbook.book.access import LedgerAccess
from meterbook.book.in_thread_asyncio import in_thread
from meterbook.book.relay import Relay, Tell
from meterbook.book.sweep import Failures, close_due
from meterbook.core.arguments import check_flag, check_limit
from meterbook.core.entries import check_text
from meterbook.core.ledgers import DeliveryState, Relayed, StripeApplied, StripeEventState
from meterbook.errors import (
    InProgress,
    LedgerUnavailable,
    MeterbookError,
    StripeUnavailable,
    TransactionConflict,
    UnknownDelivery,
    UnknownEvent,
)
from meterbook.operations.apply_stripe_event import SETTLED, LookNeeded, Means, Outcome, apply_stripe_event
from meterbook.operations.set_seats import set_seats
from meterbook.postgres import billing, deliveries, stripe_events
from meterbook.stripe.events import Event, read_event
from meterbook.stripe.signatures import verify_signature

ROWS_PER_RELAY_MAX = 100
ROWS_PER_LIST_MAX = 1000
APPLY_ATTEMPTS_MAX = 5
"""Deadlocks and locks that last too long, and objects that have to be fetched, in one delivery of an event."""


class StripeCalls(LedgerAccess):
    """What goes to Stripe goes through the outbox, and what comes from there through here."""

    # ------------------------------------------------------------------------------------------------------------- webhooks

    async def apply_stripe_event(self, raw_body: bytes, signature: str) -> StripeApplied:
        """Takes a webhook: the body as it came, and its `Stripe-Signature`. Kept raw, applied once in a transaction with its effect.

        Raises `BadSignature` (nothing is stored) and whatever keeps it from being applied: then it is kept as failed, answer Stripe
        with 500 and it sends it again. Needs the account's webhook secrets: `meterbook.open(stripe=…)`.
        """
        secrets = () if self._stripe is None else self._stripe.webhook_secrets
        event = read_event(await in_thread(verify_signature, raw_body, signature, secrets))
        arguments = {"id": event.id, "kind": event.kind, "subject": event.subject, "created_at": event.created_at}
        async with self._pool.connection() as conn:
            state = await stripe_events.change(conn, "store_event", {**arguments, "body": event.body, "at": self._at()})
        if state in SETTLED:
            return StripeApplied(event.id, event.kind, state, replayed=True)
        return await self._apply_event(event)

    async def replay_stripe_event(self, event_id: str) -> StripeApplied:
        """Applies a kept event that failed, or that never came to an end. Raises `UnknownEvent`, and what keeps it from being applied."""
        async with self._pool.connection() as conn:
            body = await stripe_events.change(conn, "find_event_body", {"id": event_id})
        if body is None:
            raise UnknownEvent(f"no event {event_id} was received")
        return await self._apply_event(read_event(body))

    async def replay_stripe_events(self) -> list[StripeApplied]:
        """All that wait, in Stripe's order; those that fail again are said to."""
        async with self._pool.connection() as conn:
            waiting: list[str] = await stripe_events.change(conn, "list_unsettled_events", {})
        return [await self._replay_kept(event_id) for event_id in waiting]

    async def stripe_events(self, *, state: str | None = None, limit: int = 100) -> list[StripeEventState]:
        """What was received and what became of it, newest first; `state`: pending, applied, ignored, stale or failed."""
        check_limit(limit, ROWS_PER_LIST_MAX)
        async with self._pool.connection() as conn:
            return await stripe_events.list_events(conn, state, limit)

    async def dismiss_stripe_event(self, event_id: str, *, reason: str) -> bool:
        """An event that waits is to have no effect, because an operator says so: kept, ignored, with the reason. False: it does not wait.

        Raises `UnknownEvent`.
        """
        arguments = {"id": event_id, "why": check_text("reason", reason), "at": self._at()}
        async with self._pool.connection() as conn:
            was = await stripe_events.change(conn, "dismiss_event", arguments)
        if was is None:
            raise UnknownEvent(f"no event {event_id} was received")
        return was not in SETTLED

    # --------------------------------------------------------------------------------------------------------------- outbox

    async def set_seats(self, subscription: str, seats: int) -> None:
        """Has Stripe told, by the outbox, how many seats a subscription is to have; its own word then brings them here.

        More are charged at once; fewer cost less from the next period on and keep this one's allowance. What holds when it is delivered is
        sent, so that quick changes converge. Raises `UnknownEntity`, `SeatsRefused`, `InvalidUsage`.
        """
        async with self._pool.connection() as conn:
            await set_seats(conn, subscription, seats, self._catalog, self._at())

    async def relay(self, *, tell: Tell | None = None, rows_max: int = ROWS_PER_RELAY_MAX) -> Relayed:
        """Delivers what is due: charges as invoices, cancellations, and alerts to `tell`. Two at once deliver each row once.

        Without a Stripe account (`meterbook.open(stripe=…)`) what is Stripe's stays due.
        """
        return await Relay(self._pool, self._catalog, self._gateway, tell, self._at).run(rows_max)

    async def deliveries(
        self, entity: str | None = None, *, state: str | None = None, limit: int = ROWS_PER_RELAY_MAX
    ) -> list[DeliveryState]:
        """What became of the outbox's rows, newest first; `state`: due, leased, delivered or dead."""
        check_limit(limit, ROWS_PER_LIST_MAX)
        async with self._pool.connection() as conn:
            entity_id = None if entity is None else await self._entity_id(conn, entity)
            return await billing.list_deliveries(conn, entity_id, state, limit)

    async def redrive(self, outbox_id: int, *, invoice_is_gone: bool = False) -> bool:
        """Sends a dead letter again, from the step where it stopped. False: it is not dead. Raises `UnknownDelivery`.

        `invoice_is_gone`: somebody deleted the draft at Stripe. It is looked for once more, and another one made if there is none.
        """
        check_flag("invoice_is_gone", invoice_is_gone)
        async with self._pool.connection() as conn:
            outcome = await deliveries.redrive_delivery(conn, outbox_id, self._at(), invoice_is_gone=invoice_is_gone)
        if outcome == "unknown":
            raise UnknownDelivery(f"the outbox has no row {outbox_id}")
        return outcome == "due"

    # -------------------------------------------------------------------------------------------------------------- private

    async def _replay_kept(self, event_id: str) -> StripeApplied:
        try:
            return await self.replay_stripe_event(event_id)
        except LedgerUnavailable:
            raise
        except MeterbookError as error:
            return StripeApplied(event_id, "", "failed", f"{error.code}: {error}")

    async def _apply_event(self, event: Event) -> StripeApplied:
        try:
            outcome = await self._apply_looking(event)
        except LedgerUnavailable:
            raise
        except MeterbookError as error:
            async with self._pool.connection() as conn:
                await stripe_events.finish_event(conn, event.id, "failed", f"{error.code}: {error}", self._at())
            raise
        await self._look_at_closes(outcome)
        note = "; ".join(outcome.notes) or None
        return StripeApplied(event.id, event.kind, outcome.state, note, replayed=not outcome.is_first)

    async def _apply_looking(self, event: Event) -> Outcome:
        """In one transaction; what has to be fetched is fetched between two."""
        looked: dict[str, Any] = {}
        for attempt in range(1, APPLY_ATTEMPTS_MAX + 1):
            means = Means(self._catalog, self._at(), looked, self._gateway is not None)
            try:
                async with self._pool.connection() as conn, conn.transaction():
                    return await apply_stripe_event(conn, event, means)
            except LookNeeded as look:
                looked[look.subject] = await self._fetch(look)
            except (TransactionConflict, InProgress):
                if attempt == APPLY_ATTEMPTS_MAX:
                    raise
        raise TransactionConflict

    async def _fetch(self, look: LookNeeded) -> Any:
        if self._gateway is None:
            raise StripeUnavailable("no Stripe account is known here")
        fetch = self._gateway.retrieve_charge if look.kind == "charge" else self._gateway.retrieve_subscription
        return await in_thread(fetch, look.subject)

    async def _look_at_closes(self, outcome: Outcome) -> None:
        """The clock closes, and the sweep looks again: what can't be closed now takes nothing back from the event."""
        for entity_id in outcome.closes:
            async with self._pool.connection() as conn:
                await close_due(conn, self._catalog, self._at(), Failures(), entity_id)
