"""Applies one of Stripe's events, once, in the caller's transaction (BEHAVIOUR §11): in whatever order they arrive, the books are the same.

An older event regresses nothing. What only Stripe can tell is asked for by `LookNeeded`, which undoes the transaction first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.ledgers import StripeState
from meterbook.core.money import cents
from meterbook.core.plans import Catalog
from meterbook.errors import AttributionUnavailable, InvalidUsage, Problem, UnknownEntity
from meterbook.operations.attribute_usage import Parties, attribute_usage
from meterbook.operations.grant_credit import CreditTerms, grant_credit
from meterbook.operations.put_subscription import SubscriptionTerms, put_subscription
from meterbook.postgres import billing, stripe_events
from meterbook.postgres.stripe_events import KnownSubscription
from meterbook.stripe.effects import (
    BlockForDispute,
    BlockForInvoice,
    Effect,
    EndSubscription,
    GrantPurchase,
    Ignore,
    LookAtCloses,
    Order,
    OwnerSaid,
    PutSubscription,
    RenewPeriod,
    Settle,
    TellProration,
)
from meterbook.stripe.events import Event, effects_of

SETTLED = ("applied", "stale", "ignored")
"""Of an event with several effects the first of these is told."""
SET_BY = "stripe"
"""Who stored the limit of a contract."""


class LookNeeded(Exception):
    """The event can't be trusted on its own, or says too little: what it names has to be fetched, and then it is applied again."""

    def __init__(self, kind: str, subject: str) -> None:
        self.kind, self.subject = kind, subject
        super().__init__(f"{kind} {subject}")


@dataclass(frozen=True, slots=True)
class Means:
    """What applying needs beside the event. `looked`: objects fetched so far, by id; `can_look`: whether more can be."""

    catalog: Catalog
    at: datetime | None
    looked: Mapping[str, Mapping[str, Any]]
    can_look: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an effect or an event; `closes`: entities whose periods may have ended. `is_first`: it was not settled before."""

    state: StripeState
    notes: tuple[str, ...] = ()
    closes: tuple[int, ...] = ()
    is_first: bool = True


async def apply_stripe_event(conn: AsyncConnection[Any], event: Event, means: Means) -> Outcome:
    """Raises `LookNeeded`, and every error that waits: `BadEvent`, `UnknownPrice`, `AttributionUnavailable` …"""
    state = await stripe_events.change(conn, "lock_event", {"id": event.id})
    if state in SETTLED:
        return Outcome(state, is_first=False)
    done = [await _apply(conn, event, effect, means) for effect in effects_of(event, means.catalog)]
    outcome = Outcome(
        min((each.state for each in done), key=SETTLED.index),
        tuple(note for each in done for note in each.notes),
        tuple(entity for each in done for entity in each.closes),
    )
    await stripe_events.finish_event(conn, event.id, outcome.state, "; ".join(outcome.notes) or None, means.at)
    return outcome


async def _apply(conn: AsyncConnection[Any], event: Event, effect: Effect, means: Means) -> Outcome:
    match effect:
        case PutSubscription():
            return await _put(conn, event, effect, means)
        case EndSubscription():
            return await _end(conn, effect, means)
        case RenewPeriod():
            return await _renew(conn, event, effect, means)
        case LookAtCloses():
            owners = await stripe_events.list_owners(conn, subscription=effect.subscription)
            return Outcome("applied", closes=tuple(owners))
        case Ignore():
            return Outcome("ignored", (effect.why,))
        case _:
            return await _apply_to_money(conn, event, effect, means)


async def _apply_to_money(
    conn: AsyncConnection[Any],
    event: Event,
    effect: BlockForInvoice | BlockForDispute | Settle | GrantPurchase | TellProration,
    means: Means,
) -> Outcome:
    match effect:
        case BlockForInvoice() | BlockForDispute():
            return await _block(conn, event, effect, means)
        case Settle():
            return await _settle(conn, event, effect)
        case GrantPurchase():
            return await _grant(conn, effect, means)
        case TellProration():
            return await _tell_proration(conn, effect, means)


# ------------------------------------------------------------------------------------------------------------- subscriptions


async def _put(conn: AsyncConnection[Any], event: Event, said: PutSubscription, means: Means) -> Outcome:
    known = await stripe_events.lock_subscription(conn, said.subscription, event.created_at, said.named)
    if known.owner_is_gone:
        return await _concerns_nobody(conn, event)
    await _check_named(conn, said, known)
    seen = None if known.seen_at is None else Order(known.seen_at, known.seen_rank, known.seen_event)
    if seen is not None and said.order.is_tied_with(seen) and means.can_look:
        fetched = _as_fetched(event, said, means)
        await _put_past(conn, said, known, means)
        return await _put_newest(conn, fetched, known, means)
    if seen is None or said.order.is_newer_than(seen):
        return await _put_newest(conn, said, known, means)
    await _put_past(conn, said, known, means)
    return Outcome("stale", (f"older than {known.seen_event}: its plan and seats count from then on, nothing else",))


async def _concerns_nobody(conn: AsyncConnection[Any], event: Event) -> Outcome:
    """Whoever was deleted is not written down again by what Stripe still tells of them."""
    await stripe_events.change(conn, "erase_event", {"id": event.id})
    return Outcome("ignored", ("its owner was deleted here",))


def _as_fetched(event: Event, said: PutSubscription, means: Means) -> PutSubscription:
    """Of two events of one second Stripe alone knows the later: the subscription as it is now. Raises `LookNeeded`.

    What is otherwise than the event says has changed since, perhaps in a later period: it counts from now on, and from its own event's time
    when that arrives.
    """
    found = means.looked.get(said.subscription)
    if found is None:
        raise LookNeeded("subscription", said.subscription)
    (fetched,) = effects_of(replace(event, object=found), means.catalog)
    if not isinstance(fetched, PutSubscription):
        raise TypeError(f"{event.kind} is about a subscription")
    if fetched.has_ended or fetched.holds_as(said):
        return fetched
    return replace(fetched, effective_at=None)


async def _put_newest(
    conn: AsyncConnection[Any], said: PutSubscription, known: KnownSubscription, means: Means
) -> Outcome:
    owner = await _owner_of(conn, said.owner, known)
    starts_at, ends_at = said.starts_at, said.ends_at
    if (
        known.invoiced_starts_at
        and known.invoiced_ends_at
        and known.invoiced_starts_at > starts_at
        and not said.has_ended
    ):
        starts_at, ends_at = known.invoiced_starts_at, known.invoiced_ends_at
    takes_back = known.is_ours and known.cancels is None and not said.cancel_at_period_end and not said.has_ended
    if takes_back and not known.is_adopted:
        await stripe_events.change(conn, "disown_cancellation", {"subscription": known.subscription_id})
    terms = SubscriptionTerms(
        id=known.subscription_id or said.named or said.subscription,
        owner=owner,
        plan=said.plan,
        status=said.status,
        starts_at=starts_at,
        ends_at=ends_at,
        seats=said.seats,
        interval=said.interval,
        anchor=said.anchor,
        cancel_at_period_end=said.cancel_at_period_end if known.cancels is None else known.cancels,
        cancel_at=said.cancel_at,
        effective_at=said.effective_at,
        currency=said.currency,
        stripe_customer=said.customer,
        stripe_subscription=said.subscription,
    )
    await put_subscription(conn, terms, means.catalog, means.at)
    if known.is_adopted:
        arguments = {"subscription": known.subscription_id, "at": means.at}
        await stripe_events.change(conn, "tell_cancellation_again", arguments)
    await _store_limit(conn, owner, said.monthly_price, known.monthly_price, means)
    await _note_newest(conn, said.subscription, said.order, said.owner.text, said.monthly_price)
    return Outcome("applied", (f"{owner}: {said.plan} × {said.seats}, {said.status}",))


async def _note_newest(
    conn: AsyncConnection[Any],
    subscription: str,
    order: Order,
    owner_said: str | None = None,
    monthly_price: Decimal | None = None,
) -> None:
    seen = {"seen_at": order.at, "seen_rank": order.rank, "seen_event": order.event}
    arguments = {"id": subscription, **seen, "owner_said": owner_said, "monthly_price": monthly_price}
    await stripe_events.change(conn, "note_subscription", arguments)


async def _end(conn: AsyncConnection[Any], effect: EndSubscription, means: Means) -> Outcome:
    """Raises why its plan can't be told where nothing is known of it either."""
    known = await stripe_events.lock_subscription(conn, effect.subscription, effect.order.at)
    arguments = {"id": effect.subscription, "ended_at": effect.ended_at, "at": means.at}
    if not known.subscription_id:
        raise effect.because
    await stripe_events.change(conn, "end_subscription", arguments)
    await _note_newest(conn, effect.subscription, effect.order)
    return Outcome("applied", (f"ended, though: {effect.because}",))


async def _store_limit(
    conn: AsyncConnection[Any], owner: str, said: Decimal | None, known: Decimal | None, means: Means
) -> None:
    """A contract's price is the limit; said again, it does not undo what an operator has stored since."""
    if said is None or said == known:
        return
    entity_id = await billing.find_entity(conn, owner)
    if entity_id is not None:
        await billing.set_limit(conn, entity_id, Decimal(cents(said)).scaleb(-2), SET_BY, means.at)


async def _put_past(conn: AsyncConnection[Any], said: PutSubscription, known: KnownSubscription, means: Means) -> None:
    plan = means.catalog.plan(said.plan)
    allowance = plan.allowance(said.seats)
    arguments = {
        "subscription": known.subscription_id,
        "plan": plan.code,
        "seats": said.seats or 1,
        "included": allowance.included,
        "refresh_per_day": allowance.refresh_per_day,
        "is_entitled": said.is_entitled,
        "starts_at": said.starts_at,
        "ends_at": said.ends_at,
        "interval_months": said.interval_months,
        "anchor": said.anchor,
        "effective_at": said.effective_at,
        "at": means.at,
    }
    await stripe_events.change(conn, "note_past_terms", arguments)


async def _renew(conn: AsyncConnection[Any], event: Event, effect: RenewPeriod, means: Means) -> Outcome:
    known = await stripe_events.lock_subscription(conn, effect.subscription, event.created_at)
    if known.owner_is_gone:
        return await _concerns_nobody(conn, event)
    arguments = {"starts_at": effect.starts_at, "ends_at": effect.ends_at, "at": means.at}
    await stripe_events.change(conn, "note_invoiced_period", {"id": effect.subscription, **arguments})
    return Outcome("applied", (f"renewed for {effect.starts_at:%Y-%m-%d} to {effect.ends_at:%Y-%m-%d}",))


# -------------------------------------------------------------------------------------------------------------- whose it is


async def _check_named(conn: AsyncConnection[Any], said: PutSubscription, known: KnownSubscription) -> None:
    """What the metadata name is one, and the same owner's: else two would bill, or credits pass on. Raises `AttributionUnavailable`."""
    if said.named is None:
        return
    if known.subscription_id not in (None, said.named):
        raise AttributionUnavailable(
            f"its metadata name {said.named!r}, and {said.subscription} is known as {known.subscription_id!r}"
        )
    if known.named_at_stripe not in (None, said.subscription):
        raise AttributionUnavailable(f"its metadata name {said.named!r}, which is {known.named_at_stripe} at Stripe")
    if known.is_adopted and said.owner.text is not None:
        owner = await _named_owner(conn, said.owner)
        if owner != known.owner:
            raise AttributionUnavailable(f"its metadata name {said.named!r}, which is {known.owner}'s, and {owner}")


async def _owner_of(conn: AsyncConnection[Any], said: OwnerSaid, known: KnownSubscription) -> str:
    """The owner that we know, until the metadata say another than they did: an application that has passed a subscription on by
    `put_subscription` need not change what was written down at Stripe when it began.
    """
    has_changed = said.text not in (None, known.owner_said) and not (said.entity is None and known.owner_said is None)
    return known.owner if known.owner is not None and not has_changed else await _named_owner(conn, said)


async def _named_owner(conn: AsyncConnection[Any], said: OwnerSaid) -> str:
    """Raises `AttributionUnavailable`: never a default."""
    if said.entity is not None:
        return said.entity
    if said.reference is None:
        raise AttributionUnavailable("its metadata name no owner: set billing_entity to user:… or organization:…")
    if said.user is not None:
        return f"user:{said.reference}" if said.user == said.reference else f"organization:{said.reference}"
    is_organization = await stripe_events.change(conn, "organization_is_known", {"organization": said.reference})
    if is_organization and await stripe_events.change(conn, "user_is_known", {"user": said.reference}):
        raise AttributionUnavailable(
            f"referenceId {said.reference!r} is a user and an organization: set billing_entity in its metadata"
        )
    return f"organization:{said.reference}" if is_organization else f"user:{said.reference}"


async def _owners(
    conn: AsyncConnection[Any], what: str, *, subscription: str | None = None, customer: str | None = None
) -> list[int]:
    """Raises `AttributionUnavailable`: its subscription may not have been told yet."""
    found = await stripe_events.list_owners(conn, subscription=subscription, customer=customer)
    if not found:
        raise AttributionUnavailable(
            f"{what} concerns {subscription or customer}, and no subscription of that name is known"
        )
    return found


# ------------------------------------------------------------------------------------------------------------ blocks, credits


async def _block(
    conn: AsyncConnection[Any], event: Event, effect: BlockForInvoice | BlockForDispute, means: Means
) -> Outcome:
    if isinstance(effect, BlockForInvoice):
        reason, reference = "payment_failed", effect.invoice
        debtors = await stripe_events.list_debtors(conn, reference)
        owners = debtors or await _owners(conn, reference, subscription=effect.subscription)
    else:
        reason, reference = "dispute", effect.dispute
        owners = await _owners(conn, reference, customer=_customer_of(effect, means))
    blocked = 0
    for entity_id in owners:
        arguments = {
            "entity_id": entity_id,
            "reason": reason,
            "reference": reference,
            "event": event.id,
            "at": means.at,
        }
        blocked += bool(await stripe_events.change(conn, "block", arguments))
    return Outcome("applied", (f"blocks {blocked}" if blocked else "settled already, or blocking already",))


def _customer_of(effect: BlockForDispute, means: Means) -> str:
    """Raises `LookNeeded`, `AttributionUnavailable`."""
    if effect.customer is not None:
        return effect.customer
    charge = means.looked.get(effect.charge)
    if charge is None and means.can_look:
        raise LookNeeded("charge", effect.charge)
    customer = (charge or {}).get("customer")
    if not isinstance(customer, str):
        raise AttributionUnavailable(
            f"{effect.dispute} names {effect.charge} alone, and whose that is can't be asked here"
        )
    return customer


async def _settle(conn: AsyncConnection[Any], event: Event, effect: Settle) -> Outcome:
    arguments = {"reference": effect.reference, "outcome": effect.outcome, "settled_at": event.created_at}
    freed = await stripe_events.change(conn, "settle", arguments)
    return Outcome("applied", (f"{effect.reference} is {effect.outcome}" + (f", frees {freed}" if freed else ""),))


async def _grant(conn: AsyncConnection[Any], effect: GrantPurchase, means: Means) -> Outcome:
    """Raises `InvalidUsage` for an amount outside 10.00 … 1000.00, or in another currency than the ledger's."""
    if effect.currency.upper() != means.catalog.currency:
        said = f"{effect.currency} is not the ledger's {means.catalog.currency}"
        raise InvalidUsage([Problem(0, "currency", "wrong_currency", said)])
    owner = await _named_owner(conn, effect.owner)
    await attribute_usage(conn, Parties(entities=(owner,)), means.at)
    entity_id = await billing.find_entity(conn, owner)
    if entity_id is None:
        raise UnknownEntity(f"{owner} is not known: call put_organization first")
    terms = CreditTerms(effect.amount, f"stripe:{effect.invoice}", "purchase")
    granted = await grant_credit(conn, entity_id, terms, means.at)
    return Outcome("applied", (f"{effect.amount} {'granted to' if granted else 'was granted before to'} {owner}",))


async def _tell_proration(conn: AsyncConnection[Any], effect: TellProration, means: Means) -> Outcome:
    for entity_id in await stripe_events.list_owners(conn, subscription=effect.subscription):
        arguments = {"entity_id": entity_id, "invoice": effect.invoice, "cents": effect.cents, "at": means.at}
        await stripe_events.change(conn, "tell_proration", arguments)
    return Outcome("applied", (f"{effect.invoice} gives {effect.cents} cents back for a decrease",))
