"""Subscriptions: made, changed, renewed, paused, ended, as Stripe does it."""

from tests.stripe_server import shapes
from tests.stripe_server.calendar_periods import boundary, end_after
from tests.stripe_server.invoices import merged
from tests.stripe_server.refusals import declined, invalid, missing, not_here, required
from tests.stripe_server.standing import ENDED, UPDATED, end
from tests.stripe_server.subscription_invoices import (
    WHOLE,
    Period,
    collect_at_once,
    collect_renewal,
    items_of,
    items_with_period,
    make_invoice,
    period_of,
    prorate,
    rhythm_of,
)
from tests.stripe_server.world import DAY_S, Thing, World

# ---------------------------------------------------------------------------------------------------------------------- making


def create(world: World, params: Thing) -> Thing:
    """Nothing is made when it can't be; a card that refuses leaves it `incomplete` unless the parameters say otherwise."""
    for name in ("customer", "items"):
        if not params.get(name):
            raise required(name)
    customer = world.named("customer", params["customer"], "customer")
    subscription = shapes.subscription(world.new_id("sub"), world.time_of(customer), customer)
    items = [_new_item(world, subscription, asked) for asked in params["items"]]
    period = _first_period(subscription, items, params)
    subscription["items"] = items_with_period(subscription, items, period)
    subscription.update(_settings(world, params), currency=items[0]["price"]["currency"])
    subscription.update(_cancellation(subscription, params))
    _check_card(world, subscription, params)
    world.add(subscription)
    _first_invoice(world, subscription, period, params)
    world.emit("customer.subscription.created", subscription)
    return subscription


def _new_item(world: World, subscription: Thing, asked: Thing) -> Thing:
    if "price" not in asked:
        raise required("items[0][price]")
    price = _recurring(world, asked["price"])
    at, quantity = world.time_of(subscription), asked.get("quantity", 1)
    item = shapes.subscription_item(
        world.new_id("si"), at, subscription_id=subscription["id"], of_price=price, quantity=quantity
    )
    item["metadata"] = asked.get("metadata", {})
    return item


def _recurring(world: World, price_id: str) -> Thing:
    price = world.named("price", price_id, "items[0][price]")
    if not price["recurring"]:
        raise invalid(
            "The price specified is set to `type=one_time` but this field only accepts prices with `type=recurring`."
        )
    return price


def _first_period(subscription: Thing, items: list[Thing], params: Thing) -> Period:
    """A trial ends where the anchor is; an anchor ahead makes the first period shorter."""
    at, (interval, every) = subscription["created"], rhythm_of(items)
    trial_end = _trial_end(at, params)
    if trial_end:
        subscription.update(billing_cycle_anchor=trial_end, status="trialing", trial_start=at, trial_end=trial_end)
        return Period(at, trial_end)
    anchor = int(params.get("billing_cycle_anchor") or at)
    if not at <= anchor <= boundary(at, interval, every):
        raise invalid(
            "billing_cycle_anchor must lie between now and the next natural billing date.", param="billing_cycle_anchor"
        )
    subscription["billing_cycle_anchor"] = anchor
    return Period(at, end_after(anchor, interval, every, at))


def _trial_end(at: int, params: Thing) -> int | None:
    if params.get("trial_period_days"):
        return at + int(params["trial_period_days"]) * DAY_S
    asked = params.get("trial_end")
    if asked in {None, "now"}:
        return None
    if int(asked) <= at:
        raise invalid("Invalid timestamp: must be an integer Unix timestamp in the future.", param="trial_end")
    return int(asked)


_SETTINGS = (
    "collection_method",
    "days_until_due",
    "default_payment_method",
    "description",
    "metadata",
    "trial_settings",
)


def _settings(world: World, params: Thing) -> Thing:
    """The parameters that are fields of the same name."""
    if params.get("default_payment_method"):
        world.named("payment_method", params["default_payment_method"], "default_payment_method")
    given = {name: params[name] for name in _SETTINGS if name in params}
    if "pause_collection" in params:
        asked = params["pause_collection"]
        given["pause_collection"] = {"resumes_at": None, **asked} if asked else None
    return given


def _cancellation(subscription: Thing, params: Thing) -> Thing:
    """cancel_at_period_end and cancel_at: setting one of them anew forgets the other."""
    if "cancel_at" in params:
        asked = params["cancel_at"] or None
        return _to_cancel(subscription, period_of(subscription).end if isinstance(asked, str) else asked)
    if params.get("cancel_at_period_end", subscription["cancel_at_period_end"]) == subscription["cancel_at_period_end"]:
        return {}
    if not params["cancel_at_period_end"]:
        return _to_cancel(subscription, None)
    return {**_to_cancel(subscription, period_of(subscription).end), "cancel_at_period_end": True}


def _to_cancel(subscription: Thing, moment: int | None) -> Thing:
    details = {**subscription["cancellation_details"], "reason": "cancellation_requested" if moment else None}
    return {"cancel_at": moment, "cancel_at_period_end": False, "cancellation_details": details}


def _check_card(world: World, subscription: Thing, params: Thing) -> None:
    """`error_if_incomplete` changes nothing at all when the card would refuse, so that is asked before."""
    if params.get("payment_behavior") == "pending_if_incomplete":
        raise not_here("payment_behavior=pending_if_incomplete")
    if params.get("payment_behavior") != "error_if_incomplete" or subscription["status"] == "trialing":
        return
    customer = world.things[subscription["customer"]]
    method = subscription["default_payment_method"] or customer["invoice_settings"]["default_payment_method"]
    card = world.next_card or (world.cards[method] if method else None)
    if card is None:
        raise invalid(
            "This customer has no attached payment source or default payment method.", code="resource_missing"
        )
    if card.refusal:
        world.next_card = None
        raise declined(*card.refusal)


def _first_invoice(world: World, subscription: Thing, period: Period, params: Thing) -> None:
    is_trial, part = subscription["status"] == "trialing", _part_of_whole(subscription, period)
    if part != WHOLE and params.get("proration_behavior") == "none":
        subscription["status"] = "active"
        return
    at = Period(period.start, period.start)
    invoice = make_invoice(world, subscription, "subscription_create", at, full=True, part=part, free=is_trial)
    collect_at_once(world, invoice, waits=params.get("payment_behavior") == "default_incomplete")
    subscription["latest_invoice"] = invoice["id"]
    if not is_trial and (invoice["status"] == "paid" or invoice["collection_method"] == "send_invoice"):
        subscription["status"] = "active"


def _part_of_whole(subscription: Thing, period: Period) -> tuple[int, int]:
    """How much of an interval a first period is that ends at an anchor ahead."""
    anchor, (interval, every) = subscription["billing_cycle_anchor"], rhythm_of(items_of(subscription))
    if subscription["status"] == "trialing" or period.end != anchor:
        return WHOLE
    length, whole = period.end - period.start, anchor - boundary(anchor, interval, -every)
    return (length, whole) if length < whole else WHOLE


# -------------------------------------------------------------------------------------------------------------------- changing


def update(world: World, params: Thing, subscription_id: str) -> Thing:
    """Each change takes effect now; what it costs is prorated into pending items, or invoiced at once where the cycle begins anew."""
    subscription = world.get("subscription", subscription_id)
    if subscription["status"] in ENDED and params.keys() - {"metadata", "cancellation_details"}:
        raise invalid("A canceled subscription can only update its cancellation_details and metadata.")
    _check_card(world, subscription, params)
    before, was_trial = items_of(subscription), subscription["status"] == "trialing"
    after = _changed_items(world, subscription, params)
    fields = _new_cycle(world, subscription, after, params)
    starts_anew = "billing_cycle_anchor" in fields
    prorations = (
        _prorate(world, subscription, before, after, params, starts_anew=starts_anew) if not was_trial else False
    )
    period = fields.pop("period")
    fields["items"] = items_with_period(subscription, after, period)
    fields |= _settings(world, params)
    if "metadata" in fields:
        fields["metadata"] = merged(subscription["metadata"], fields["metadata"])
    subscription_after = {**subscription, **fields}
    fields |= _cancellation(subscription_after, params) or _moved_cancellation(subscription, period)
    world.change(subscription, UPDATED, **_canceled_at(world, subscription, fields))
    if starts_anew or (prorations and params.get("proration_behavior") == "always_invoice"):
        _invoice_change(world, subscription, params, full=starts_anew)
    return subscription


def _changed_items(world: World, subscription: Thing, params: Thing) -> list[Thing]:
    items = {item["id"]: item for item in items_of(subscription)}
    for asked in params.get("items", ()):
        if "id" not in asked:
            added = _new_item(world, subscription, asked)
            items[added["id"]] = added
        elif asked["id"] not in items:
            raise invalid(f"No such subscription_item: '{asked['id']}'", code="resource_missing", param="items[0][id]")
        elif asked.get("deleted"):
            del items[asked["id"]]
        else:
            items[asked["id"]] = _changed_item(world, items[asked["id"]], asked)
    if not items:
        raise invalid("A subscription must have at least one active item.", param="items")
    return list(items.values())


def _changed_item(world: World, item: Thing, asked: Thing) -> Thing:
    changed = {**item, "quantity": asked.get("quantity", item["quantity"])}
    changed["metadata"] = merged(item["metadata"], asked["metadata"]) if "metadata" in asked else item["metadata"]
    if "price" in asked:
        price = _recurring(world, asked["price"])
        changed |= {"price": dict(price), "plan": shapes.plan(price)}
    return changed


def _new_cycle(world: World, subscription: Thing, items: list[Thing], params: Thing) -> Thing:
    """The period from now on, and where that begins anew, its anchor: a trial set or ended, another interval, or asked for."""
    at, (interval, every) = world.time_of(subscription), rhythm_of(items)
    trial_end = _trial_end(at, params)
    if trial_end:
        trial = {"status": "trialing", "trial_start": subscription["trial_start"] or at, "trial_end": trial_end}
        return {"period": Period(at, trial_end), "billing_cycle_anchor": trial_end, **trial}
    ends_trial = params.get("trial_end") == "now" and subscription["status"] == "trialing"
    asked = (params.get("billing_cycle_anchor") or {}).get("type") == "now"
    other_rhythm = subscription["status"] != "trialing" and rhythm_of(items_of(subscription)) != (interval, every)
    if not (ends_trial or asked or other_rhythm):
        return {"period": period_of(subscription)}
    cycle = {"period": Period(at, boundary(at, interval, every)), "billing_cycle_anchor": at}
    return {**cycle, "status": "active", "trial_end": at} if ends_trial else cycle


def _prorate(
    world: World, subscription: Thing, before: list[Thing], after: list[Thing], params: Thing, *, starts_anew: bool
) -> bool:
    """Of a cycle that begins anew only what is unused is given back: the new period is invoiced whole."""
    if params.get("proration_behavior") == "none" or subscription["status"] not in {"active", "past_due"}:
        return False
    at = params.get("proration_date", world.time_of(subscription))
    if starts_anew:
        return prorate(world, subscription, before, (), at)
    gone = [item for item in before if not any(_costs_the_same(item, other) for other in after)]
    come = [item for item in after if not any(_costs_the_same(item, other) for other in before)]
    return prorate(world, subscription, gone, come, at)


def _costs_the_same(one: Thing, other: Thing) -> bool:
    return bool(
        (one["id"], one["price"]["id"], one["quantity"]) == (other["id"], other["price"]["id"], other["quantity"])
    )


def _moved_cancellation(subscription: Thing, period: Period) -> Thing:
    """A cancellation at the period's end moves with that end."""
    return {"cancel_at": period.end} if subscription["cancel_at_period_end"] else {}


def _canceled_at(world: World, subscription: Thing, fields: Thing) -> Thing:
    """When it was asked for, not when it takes effect."""
    if "cancel_at" not in fields or bool(fields["cancel_at"]) == bool(subscription["cancel_at"]):
        return fields
    return {**fields, "canceled_at": world.time_of(subscription) if fields["cancel_at"] else None}


def _invoice_change(world: World, subscription: Thing, params: Thing, *, full: bool) -> None:
    at, free = world.time_of(subscription), subscription["status"] == "trialing"
    invoice = make_invoice(world, subscription, "subscription_update", Period(at, at), full=full, free=free)
    invoice["auto_advance"] = True
    world.change(subscription, UPDATED, latest_invoice=invoice["id"])
    collect_at_once(world, invoice, waits=params.get("payment_behavior") == "default_incomplete")


def update_item(world: World, params: Thing, item_id: str) -> Thing:
    """The same as naming the item in an update of its subscription."""
    subscription = _subscription_with(world, item_id)
    of_item: Thing = {
        "id": item_id,
        **{name: params[name] for name in ("price", "quantity", "metadata") if name in params},
    }
    rest: Thing = {
        name: params[name] for name in ("proration_behavior", "proration_date", "payment_behavior") if name in params
    }
    update(world, {"items": [of_item], **rest}, subscription["id"])
    return retrieve_item(world, {}, item_id)


def retrieve_item(world: World, _params: Thing, item_id: str) -> Thing:
    return next(item for item in items_of(_subscription_with(world, item_id)) if item["id"] == item_id)


def _subscription_with(world: World, item_id: str) -> Thing:
    for subscription in world.of("subscription"):
        if any(item["id"] == item_id for item in items_of(subscription)):
            return subscription
    raise missing("subscription_item", item_id, param="item")


# ------------------------------------------------------------------------------------------------------------- renewing, ending


def renew(world: World, subscription: Thing) -> None:
    """The next period begins. The invoice's own period is the one that has ended, its lines are of the new one."""
    ended = period_of(subscription)
    if subscription["status"] == "trialing" and _gives_up_after_trial(world, subscription):
        return
    interval, every = rhythm_of(items_of(subscription))
    period = Period(ended.end, end_after(subscription["billing_cycle_anchor"], interval, every, ended.end))
    items = items_with_period(subscription, items_of(subscription), period)
    status = "active" if subscription["status"] == "trialing" else subscription["status"]
    before = {name: subscription[name] for name in ("items", "status", "latest_invoice")}
    subscription.update(items=items, status=status)
    invoice = make_invoice(world, subscription, "subscription_cycle", ended, full=True)
    subscription.update(before)
    world.change(subscription, UPDATED, items=items, status=status, latest_invoice=invoice["id"])
    collect_renewal(world, subscription, invoice)


def _gives_up_after_trial(world: World, subscription: Thing) -> bool:
    customer = world.things[subscription["customer"]]
    if subscription["default_payment_method"] or customer["invoice_settings"]["default_payment_method"]:
        return False
    behavior = subscription["trial_settings"]["end_behavior"]["missing_payment_method"]
    if behavior == "cancel":
        end(world, subscription, "cancellation_requested")
    elif behavior == "pause":
        world.change(subscription, UPDATED, status="paused")
        world.emit("customer.subscription.paused", subscription)
    return bool(behavior != "create_invoice")


def cancel(world: World, params: Thing, subscription_id: str) -> Thing:
    subscription = world.get("subscription", subscription_id)
    if subscription["status"] in ENDED:
        raise missing("subscription", subscription_id)
    if params.get("prorate") and subscription["status"] in {"active", "past_due"}:
        prorate(world, subscription, items_of(subscription), (), world.time_of(subscription))
    subscription["cancellation_details"] = {
        **subscription["cancellation_details"],
        **params.get("cancellation_details", {}),
    }
    end(world, subscription, "cancellation_requested")
    if params.get("invoice_now"):
        _invoice_change(world, subscription, params, full=False)
    return subscription


def pause(world: World, _params: Thing, subscription_id: str) -> Thing:
    """At rest: no period begins and nothing is invoiced until it is resumed. What is unused is given back at the next invoice."""
    subscription = world.get("subscription", subscription_id)
    if subscription["status"] not in {"active", "past_due"}:
        raise invalid(f"You can't pause a subscription that is {subscription['status']}.")
    prorate(world, subscription, items_of(subscription), (), world.time_of(subscription))
    world.change(subscription, UPDATED, status="paused")
    world.emit("customer.subscription.paused", subscription)
    return subscription


def resume(world: World, params: Thing, subscription_id: str) -> Thing:
    """A new cycle begins now, and is invoiced; active once that is paid."""
    subscription = world.get("subscription", subscription_id)
    if subscription["status"] != "paused":
        raise invalid(f"You can only resume a subscription that is paused. This one is {subscription['status']}.")
    if (params.get("billing_cycle_anchor") or {"type": "now"})["type"] != "now":
        raise not_here("resuming with an unchanged billing_cycle_anchor")
    at, (interval, every) = world.time_of(subscription), rhythm_of(items_of(subscription))
    items = items_with_period(subscription, items_of(subscription), Period(at, boundary(at, interval, every)))
    world.change(subscription, UPDATED, billing_cycle_anchor=at, items=items)
    _invoice_change(world, subscription, params, full=True)
    if subscription["status"] == "active":
        world.emit("customer.subscription.resumed", subscription)
    return subscription
