"""Delivers what the outbox says: a charge becomes one invoice, whatever dies in between (BEHAVIOUR §11).

Before each step it is written down that the step begins, and what those before it made. What an interrupted step made is looked up by
our metadata; if nothing is seen it may still be under way, so it is sent again under its own idempotency key, which Stripe answers with
what it did the first time. The key changes only when Stripe would not do it any more: when it has forgotten the key, or has answered
the step itself with an error, which it repeats for a day; what a look is answered says nothing of its step. What is older than a day is
looked up in any case: a ledger that was restored from a backup does not know what was sent after it. Nothing is called while a
transaction is open. Who lost a lease can't write anything down.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from random import randrange
from typing import Any

from meterbook.book.access import LedgerPool
from meterbook.book.in_thread_asyncio import in_thread
from meterbook.core.deliveries import Delivery, Step, invoice_text, retry_after, seat_steps
from meterbook.core.ledgers import Relayed
from meterbook.core.plans import Catalog
from meterbook.errors import BadEvent, CardDeclined, StripeRefused, StripeUnavailable, UnknownPlan
from meterbook.postgres import deliveries
from meterbook.stripe.gateway import InvoiceAsked, InvoiceSeen, StripeGateway
from meterbook.stripe.subscriptions import seats_at_stripe

Tell = Callable[[Delivery], Awaitable[None]]
KINDS_OF_STRIPE = ("charge", "cancel_at_period_end", "cancel_now", "seats")

ENDED = ("canceled", "incomplete_expired")


class LeaseLost(Exception):
    """Somebody else is at it: what was sent is theirs to find."""


@dataclass(frozen=True, slots=True)
class Relay:
    """The means to deliver: without a gateway nothing goes to Stripe, without `tell` no alert is told; both stay due."""

    pool: LedgerPool
    catalog: Catalog
    gateway: StripeGateway | None
    tell: Tell | None
    at: Callable[[], datetime | None]

    async def run(self, rows_max: int) -> Relayed:
        """What is due now, one after the other."""
        done: Counter[str] = Counter()
        for _ in range(rows_max):
            delivery = await self._claim()
            if delivery is None:
                break
            done[await self._deliver(delivery)] += 1
        return Relayed(done["delivered"], done["postponed"], done["dead"])

    async def _claim(self) -> Delivery | None:
        without = [*(KINDS_OF_STRIPE if self.gateway is None else ()), *(("alert",) if self.tell is None else ())]
        async with self.pool.connection() as conn:
            return await deliveries.claim_delivery(conn, without, self.at())

    async def _deliver(self, delivery: Delivery) -> str:
        """What became of it: `delivered`, `postponed`, `dead`, `again` or `lost`."""
        try:
            return await self._deliver_kind(delivery)
        except LeaseLost:
            return "lost"
        except (StripeUnavailable, StripeRefused) as error:
            return await self._postpone(delivery, str(error), is_stuck=error.is_answer)
        except CardDeclined as error:
            return await self._postpone(delivery, str(error), is_stuck=True)
        except (UnknownPlan, BadEvent) as error:
            return await self._postpone(delivery, str(error), is_stuck=False)

    async def _deliver_kind(self, delivery: Delivery) -> str:
        if delivery.kind == "charge" and self.gateway is not None:
            return await self._complete(delivery, await self._bill(delivery, self.gateway))
        if delivery.kind == "cancel_at_period_end" and self.gateway is not None:
            return await self._cancel(delivery, self.gateway)
        if delivery.kind == "seats" and self.gateway is not None:
            return await self._set_seats(delivery, self.gateway)
        if delivery.kind == "cancel_now" and self.gateway is not None:
            return await self._end(str(delivery.payload["stripe_subscription"]), delivery, self.gateway)
        if delivery.kind == "alert" and self.tell is not None:
            await self.tell(delivery)
            return await self._complete(delivery, None)
        return await self._bury(delivery, f"no version that runs here knows what {delivery.kind!r} is")

    # -------------------------------------------------------------------------------------------------------------- charges

    async def _bill(self, delivery: Delivery, gateway: StripeGateway) -> str:
        """Create, item, finalize, pay; gives what came of it. An invoice that a person voided or wrote off on the way stays so."""
        asked = _asked(delivery)
        delivery = await self._create(delivery, gateway, asked)
        delivery = await self._add_item(delivery, gateway, asked)
        invoice = await in_thread(gateway.retrieve_invoice, _made(delivery))
        if invoice.status == "draft":
            invoice = await self._finalize(delivery, gateway, asked, invoice)
        if invoice.status == "open":
            return await self._pay(delivery, gateway)
        return f"{invoice.id} is {invoice.status}"

    async def _create(self, delivery: Delivery, gateway: StripeGateway, asked: InvoiceAsked) -> Delivery:
        if delivery.invoice is not None:
            return delivery
        if delivery.may_have_done("create"):
            found = await in_thread(gateway.find_invoice, asked, delivery.created_at)
            if found is not None:
                return replace(delivery, invoice=found)
        delivery = delivery.in_round_of("create")
        await self._begin(delivery, "create")
        made = await in_thread(gateway.create_invoice, asked, delivery.key("create", delivery.round))
        return replace(delivery, invoice=made)

    async def _add_item(self, delivery: Delivery, gateway: StripeGateway, asked: InvoiceAsked) -> Delivery:
        if delivery.item is not None:
            return delivery
        invoice = _made(delivery)
        if delivery.may_have_done("item"):
            found = await in_thread(gateway.find_item, asked, invoice)
            if found is not None:
                return replace(delivery, item=found)
        delivery = delivery.in_round_of("item")
        await self._begin(delivery, "item")
        made = await in_thread(gateway.add_item, asked, invoice, delivery.key("item", delivery.round))
        return replace(delivery, item=made)

    async def _finalize(
        self, delivery: Delivery, gateway: StripeGateway, asked: InvoiceAsked, draft: InvoiceSeen
    ) -> InvoiceSeen:
        """From then on Stripe asks for it by itself, so its cents are looked at before."""
        _check_amount(draft, asked)
        await self._begin(delivery, "finalize")
        return await in_thread(gateway.finalize_invoice, draft.id, delivery.key("finalize", delivery.lease))

    async def _pay(self, delivery: Delivery, gateway: StripeGateway) -> str:
        """A declined card is an answer: the invoice is there, Stripe dunns, and its webhook blocks."""
        invoice = _made(delivery)
        await self._begin(delivery, "pay")
        try:
            seen = await in_thread(gateway.pay_invoice, invoice, delivery.key("pay", delivery.lease))
        except CardDeclined as declined:
            return f"{invoice} is open: {declined}"
        return f"{invoice} is {seen.status}"

    async def _begin(self, delivery: Delivery, step: Step) -> None:
        """Raises `LeaseLost`."""
        made = (delivery.invoice, delivery.item)
        async with self.pool.connection() as conn:
            if not await deliveries.begin_step(conn, delivery, step, delivery.round, made, self.at()):
                raise LeaseLost

    # -------------------------------------------------------------------------------------------------------- cancellations

    async def _cancel(self, delivery: Delivery, gateway: StripeGateway) -> str:
        """What holds when it is delivered is sent, and if something else holds by then, sent again."""
        if delivery.stripe_subscription is None or delivery.holds is None:
            return await self._complete(delivery, "it has no subscription at Stripe")
        try:
            await in_thread(
                gateway.set_cancel_at_period_end, delivery.stripe_subscription, cancels=bool(delivery.holds)
            )
        except StripeRefused:
            if not await self._has_ended(delivery.stripe_subscription, gateway):
                raise
            return await self._complete(delivery, f"{delivery.stripe_subscription} has ended")
        note = f"{delivery.stripe_subscription} {'ends with its period' if delivery.holds else 'goes on'}"
        return await self._complete(delivery, note, sent=delivery.holds)

    async def _set_seats(self, delivery: Delivery, gateway: StripeGateway) -> str:
        """Sets the quantity of the plan's item. What Stripe has now is looked at first: said again it changes nothing, and needs no key."""
        at_stripe, seats = str(delivery.stripe_subscription), int(delivery.holds or 0)
        said = await in_thread(gateway.retrieve_subscription, at_stripe)
        if said["status"] in ENDED:
            return await self._complete(delivery, f"{at_stripe} has ended")
        seen = seats_at_stripe(said, self.catalog)
        async with self.pool.connection() as conn:
            paid = await deliveries.sum_seats_paid(conn, str(delivery.subscription), seen.since)
        for quantity, is_charged in seat_steps(seen.quantity, paid, seats):
            await in_thread(gateway.set_quantity, at_stripe, seen.item, quantity, is_charged=is_charged)
        return await self._complete(delivery, f"{at_stripe} has {seats} seats", sent=seats)

    async def _end(self, subscription: str, delivery: Delivery, gateway: StripeGateway) -> str:
        """A customer was deleted here: without proration, since what was used is billed by the close."""
        try:
            await in_thread(gateway.cancel_subscription, subscription)
        except StripeRefused:
            if not await self._has_ended(subscription, gateway):
                raise
        return await self._complete(delivery, f"{subscription} has ended")

    async def _has_ended(self, subscription: str, gateway: StripeGateway) -> bool:
        seen = await in_thread(gateway.retrieve_subscription, subscription)
        return seen["status"] in ENDED

    # -------------------------------------------------------------------------------------------------------- what came of it

    async def _complete(self, delivery: Delivery, note: str | None, *, sent: bool | int | None = None) -> str:
        async with self.pool.connection() as conn:
            return await deliveries.complete_delivery(conn, delivery, note, self.at(), sent=sent)

    async def _postpone(self, delivery: Delivery, why: str, *, is_stuck: bool) -> str:
        """`is_stuck`: Stripe repeats this answer under this key."""
        if delivery.is_given_up:
            return await self._bury(delivery, why)
        delay = retry_after(delivery.attempts, randrange(1000))  # noqa: S311  no secret: it spreads retries
        async with self.pool.connection() as conn:
            kept = await deliveries.postpone_delivery(conn, delivery, why, delay, self.at(), is_stuck=is_stuck)
        return "postponed" if kept else "lost"

    async def _bury(self, delivery: Delivery, why: str) -> str:
        async with self.pool.connection() as conn:
            return "dead" if await deliveries.bury_delivery(conn, delivery, why, self.at()) else "lost"


def _asked(delivery: Delivery) -> InvoiceAsked:
    said: Any = delivery.payload
    if delivery.period_starts_at is None or delivery.period_ends_at is None or not said["stripe_customer"]:
        raise StripeRefused("the charge has no period or no customer at Stripe")
    text = invoice_text(delivery.period_starts_at, delivery.period_ends_at, said["kind"])
    return InvoiceAsked(
        delivery.charge,
        said["stripe_customer"],
        said["amount_cents"],
        delivery.currency,
        text,
        said["stripe_subscription"],
    )


def _made(delivery: Delivery) -> str:
    if delivery.invoice is None:
        raise StripeRefused("the step comes after the invoice was made")  # never: the steps are in order
    return delivery.invoice


def _check_amount(invoice: InvoiceSeen, asked: InvoiceAsked) -> None:
    """Somebody may have changed it at Stripe: then nobody is asked to pay it, and an operator is told."""
    if (invoice.subtotal_cents, invoice.currency) != (asked.amount_cents, asked.currency):
        raise StripeRefused(
            f"{invoice.id} asks {invoice.subtotal_cents} cents {invoice.currency} where {asked.amount_cents} {asked.currency} are charged"
        )
