"""Invoices and their items: draft → open → paid, void or uncollectible, and what each step tells."""

from typing import Any

from tests.stripe_server import shapes
from tests.stripe_server.payments import charge_invoice, close_intent, default_method, open_intent, subscription_of
from tests.stripe_server.refusals import Refused, invalid, not_here, required
from tests.stripe_server.standing import after_failure, after_last_failure, after_payment
from tests.stripe_server.world import HOUR_S, Thing, World

SMALLEST_CHARGE_CENTS = 50
PENDING_MAX = 250
DAY_S = 86_400

# ---------------------------------------------------------------------------------------------------------------------- drafts


def draft(world: World, customer: Thing, currency: str, subscription: Thing | None = None, **given: Any) -> Thing:
    """A new invoice without lines; `given` replaces fields of its shape."""
    invoice = shapes.invoice(world.new_id("in"), world.time_of(customer), customer, currency)
    if subscription:
        invoice["parent"] = shapes.parent_of_invoice(subscription["id"], subscription["metadata"])
    invoice.update(given)
    if invoice["auto_advance"] and not invoice["automatically_finalizes_at"]:
        invoice["automatically_finalizes_at"] = invoice["created"] + HOUR_S
    return world.add(invoice)


def add_line(world: World, invoice: Thing, line: Thing) -> Thing:
    invoice["lines"]["data"].append(line)
    settle_amounts(world, invoice)
    return line


def settle_amounts(world: World, invoice: Thing) -> None:
    """The balance of the customer comes first; below the smallest charge nothing is asked for, and the rest is carried on."""
    total = sum(line["amount"] for line in invoice["lines"]["data"])
    balance = world.things[invoice["customer"]]["balance"]
    asked = total + balance
    due = asked if asked >= SMALLEST_CHARGE_CENTS else 0
    subtotals = dict.fromkeys(("subtotal", "subtotal_excluding_tax", "total", "total_excluding_tax"), total)
    invoice.update(subtotals, starting_balance=balance, amount_due=due, amount_remaining=due)


def take_pending(world: World, invoice: Thing) -> None:
    """The customer's items that wait for an invoice: those of its subscription and those of none, or of none alone."""
    own = subscription_of(invoice)
    for item in _pending(world, invoice["customer"])[:PENDING_MAX]:
        of_subscription = ((item["parent"] or {}).get("subscription_details") or {}).get("subscription")
        if of_subscription in {None, own} and item["currency"] == invoice["currency"]:
            put_item(world, item, invoice)


def _pending(world: World, customer_id: str) -> list[Thing]:
    return [item for item in world.of("invoiceitem") if item["invoice"] is None and item["customer"] == customer_id]


def put_item(world: World, item: Thing, invoice: Thing) -> None:
    item["invoice"] = invoice["id"]
    line = shapes.line_item(
        world.new_id("il"),
        invoice_id=invoice["id"],
        amount=item["amount"],
        currency=item["currency"],
        period=item["period"],
        quantity=item["quantity"],
    )
    line.update(
        description=item["description"],
        metadata=dict(item["metadata"]),
        parent=shapes.parent_of_item_line(item),
        pricing=item["pricing"],
        subscription=((item["parent"] or {}).get("subscription_details") or {}).get("subscription"),
    )
    add_line(world, invoice, line)


def create(world: World, params: Thing) -> Thing:
    subscription = (
        world.named("subscription", params["subscription"], "subscription") if "subscription" in params else None
    )
    customer_id = params.get("customer") or (subscription and subscription["customer"])
    if not customer_id:
        raise required("customer")
    customer = world.named("customer", customer_id, "customer")
    if subscription and subscription["customer"] != customer["id"]:
        raise invalid(
            f"The subscription {subscription['id']} does not belong to customer {customer['id']}.", param="subscription"
        )
    given = _given(world, params)
    currency = str(params.get("currency") or customer["currency"] or "usd").lower()
    invoice = draft(world, customer, currency, subscription, **given)
    if params.get("pending_invoice_items_behavior", "include" if subscription else "exclude") == "include":
        take_pending(world, invoice)
    settle_amounts(world, invoice)
    world.emit("invoice.created", invoice)
    return invoice


def _given(world: World, params: Thing) -> Thing:
    """The parameters of create and update that are fields of the same name."""
    method = params.get("default_payment_method")
    if method:
        world.named("payment_method", method, "default_payment_method")
    fields = ("auto_advance", "automatically_finalizes_at", "collection_method", "default_payment_method")
    given = {
        name: params[name] for name in (*fields, "description", "footer", "metadata", "due_date") if name in params
    }
    if params.get("collection_method") == "send_invoice" and not {"days_until_due", "due_date"} & params.keys():
        raise invalid("You must specify `days_until_due` or `due_date` when `collection_method` is `send_invoice`.")
    return given


def update(world: World, params: Thing, invoice_id: str) -> Thing:
    invoice = world.get("invoice", invoice_id)
    if invoice["status"] != "draft" and params.keys() - {
        "metadata",
        "auto_advance",
        "default_payment_method",
        "description",
    }:
        raise _not_editable()
    given = _given(world, params)
    if "metadata" in given:
        given["metadata"] = merged(invoice["metadata"], given["metadata"])
    if "auto_advance" in given and invoice["status"] == "draft":
        at = world.time_of(invoice) + HOUR_S
        given.setdefault("automatically_finalizes_at", at if given["auto_advance"] else None)
    return world.change(invoice, "invoice.updated", **given)


def merged(old: Thing, new: Thing) -> Thing:
    """Metadata: keys are added to what is there, an empty value takes one away, nothing at all takes all."""
    return {name: value for name, value in {**old, **new}.items() if value != ""} if new else {}


def delete(world: World, _params: Thing, invoice_id: str) -> Thing:
    """A draft only; its items wait for another invoice, unless they were made for this one."""
    invoice = world.get("invoice", invoice_id)
    if invoice["status"] != "draft" or subscription_of(invoice):
        raise invalid(
            "You can only delete draft invoices that do not belong to a subscription.", code="invoice_not_editable"
        )
    world.emit("invoice.deleted", invoice)
    for item in world.of("invoiceitem"):
        if item["invoice"] == invoice_id:
            item["deleted"] = True
    invoice["deleted"] = True
    return {"id": invoice_id, "object": "invoice", "deleted": True}


# ----------------------------------------------------------------------------------------------------------------------- items


def create_item(world: World, params: Thing) -> Thing:
    invoice = world.named("invoice", params["invoice"], "invoice") if "invoice" in params else None
    customer_id = params.get("customer") or (invoice and invoice["customer"])
    if not customer_id:
        raise required("customer")
    customer = world.named("customer", customer_id, "customer")
    _check_takes_item(invoice, customer, params)
    item = _new_item(world, customer, params, invoice)
    if invoice:
        put_item(world, item, invoice)
    world.emit("invoiceitem.created", item)
    if invoice:
        world.emit("invoice.updated", invoice, {})
    return item


def _check_takes_item(invoice: Thing | None, customer: Thing, params: Thing) -> None:
    if invoice is None:
        return
    if invoice["customer"] != customer["id"]:
        raise invalid(f"The invoice {invoice['id']} does not belong to customer {customer['id']}.", param="invoice")
    if invoice["status"] != "draft":
        raise _not_editable()
    if str(params.get("currency") or invoice["currency"]).lower() != invoice["currency"]:
        raise invalid(
            f"The currency of the invoice is `{invoice['currency']}`; an item needs the same.", param="currency"
        )


def _not_editable() -> Refused:
    return invalid("This invoice is no longer editable", code="invoice_not_editable")


def _new_item(world: World, customer: Thing, params: Thing, invoice: Thing | None) -> Thing:
    amount, quantity, pricing = _amount(world, params)
    currency = str(params.get("currency") or (invoice and invoice["currency"]) or "").lower()
    if not currency:
        raise required("currency")
    at = world.time_of(customer)
    item = shapes.invoice_item(world.new_id("ii"), at, customer, amount=amount, currency=currency, quantity=quantity)
    item.update(
        {name: params[name] for name in ("description", "metadata", "period") if name in params}, pricing=pricing
    )
    if "subscription" in params:
        subscription = world.named("subscription", params["subscription"], "subscription")
        item["parent"] = parent_of_item(subscription["id"], None)
    return world.add(item)


def _amount(world: World, params: Thing) -> tuple[int, int, Thing]:
    """amount, or quantity × a unit's price: cents, quantity, and how it was priced."""
    if "amount" in params:
        if params.keys() & {"pricing", "quantity", "unit_amount_decimal"}:
            raise invalid(
                "`amount` can't be given together with `pricing`, `quantity` or `unit_amount_decimal`.", param="amount"
            )
        return params["amount"], 1, shapes.pricing(None, params["amount"])
    quantity = params.get("quantity", 1)
    if "pricing" in params:
        price = world.named("price", params["pricing"]["price"], "pricing[price]")
        return quantity * price["unit_amount"], quantity, shapes.pricing(price, price["unit_amount"])
    unit = params.get("unit_amount_decimal")
    if unit is None:
        raise required("amount")
    if unit != int(unit):
        raise not_here("units that cost parts of a cent")
    return quantity * int(unit), quantity, shapes.pricing(None, int(unit))


def parent_of_item(subscription_id: str, subscription_item: str | None) -> Thing:
    details = {"subscription": subscription_id}
    if subscription_item:
        details["subscription_item"] = subscription_item
    return {"subscription_details": details, "type": "subscription_details"}


def delete_item(world: World, _params: Thing, item_id: str) -> Thing:
    item = world.get("invoiceitem", item_id)
    invoice = world.find("invoice", item["invoice"])
    if invoice and invoice["status"] != "draft":
        raise _not_editable()
    if invoice:
        lines = invoice["lines"]["data"]
        lines[:] = [line for line in lines if _item_of_line(line) != item_id]
        settle_amounts(world, invoice)
    world.emit("invoiceitem.deleted", item)
    item["deleted"] = True
    return {"id": item_id, "object": "invoiceitem", "deleted": True}


def _item_of_line(line: Thing) -> str | None:
    parent = line["parent"] or {}
    details = parent.get("invoice_item_details") or parent.get("subscription_item_details") or {}
    found = details.get("invoice_item")
    return str(found) if found else None


# ----------------------------------------------------------------------------------------------------------- finalizing, paying


def finalize(world: World, params: Thing, invoice_id: str) -> Thing:
    invoice = world.get("invoice", invoice_id)
    if invoice["status"] != "draft":
        raise invalid("This invoice is already finalized, you can't re-finalize a non-draft invoice.")
    if "auto_advance" in params:
        invoice["auto_advance"] = params["auto_advance"]
    finalize_draft(world, invoice)
    if (
        invoice["status"] == "open"
        and invoice["auto_advance"]
        and invoice["collection_method"] == "charge_automatically"
    ):
        invoice["next_payment_attempt"] = world.time_of(invoice) + HOUR_S
    return invoice


def finalize_draft(world: World, invoice: Thing) -> None:
    """It gets its number and can no longer be changed; with nothing to pay, it is paid."""
    at, customer = world.time_of(invoice), world.things[invoice["customer"]]
    settle_amounts(world, invoice)
    left = invoice["total"] + invoice["starting_balance"] - invoice["amount_due"]
    _set_balance(world, customer, left)
    customer["currency"] = customer["currency"] or invoice["currency"]
    invoice.update(
        automatically_finalizes_at=None,
        effective_at=at,
        ending_balance=left,
        number=f"{customer['invoice_prefix']}-{customer['next_invoice_sequence']:04d}",
        status="open",
        status_transitions={**invoice["status_transitions"], "finalized_at": at},
    )
    customer["next_invoice_sequence"] += 1
    if invoice["amount_due"]:
        open_intent(world, invoice)
    world.emit("invoice.finalized", invoice)
    if not invoice["amount_due"]:
        _settled(world, invoice)


def _set_balance(world: World, customer: Thing, balance: int) -> None:
    if customer["balance"] != balance:
        world.change(customer, "customer.updated", balance=balance)


def _settled(world: World, invoice: Thing, amount_paid: int = 0) -> None:
    at = world.time_of(invoice)
    world.change(
        invoice,
        "invoice.updated",
        amount_paid=amount_paid,
        amount_remaining=0,
        attempted=True,
        auto_advance=False,
        next_payment_attempt=None,
        status="paid",
        status_transitions={**invoice["status_transitions"], "paid_at": at},
    )
    world.emit("invoice.paid", invoice)
    world.emit("invoice.payment_succeeded", invoice)
    after_payment(world, invoice)


def attempt(world: World, invoice: Thing, method_id: str | None = None) -> Refused | None:
    """Tries to be paid; what refused the money, or None. What follows for the subscription follows at once."""
    refused = charge_invoice(world, invoice, method_id or default_method(world, invoice))
    invoice.update(attempt_count=invoice["attempt_count"] + 1, attempted=True)
    if refused is None:
        _settled(world, invoice, invoice["amount_due"])
        return None
    failures = invoice["attempt_count"]
    again = invoice["auto_advance"] and failures <= len(world.retries_s)
    next_attempt = world.time_of(invoice) + world.retries_s[failures - 1] if again else None
    world.change(invoice, "invoice.updated", next_payment_attempt=next_attempt)
    world.emit("invoice.payment_failed", invoice)
    after_failure(world, invoice)
    if invoice["auto_advance"] and not again:
        after_last_failure(world, invoice)
    return refused


def pay(world: World, params: Thing, invoice_id: str) -> Thing:
    """402 when the card refuses: the invoice stays as it was, one attempt older."""
    invoice = world.get("invoice", invoice_id)
    if invoice["status"] == "paid":
        raise invalid("Invoice is already paid")
    if invoice["status"] not in {"open", "uncollectible"}:
        raise invalid(f"You can only pay an open or uncollectible invoice. This invoice is {invoice['status']}.")
    if params.get("paid_out_of_band"):
        close_intent(world, invoice, "automatic")
        _settled(world, invoice)
        return invoice
    method = params.get("payment_method")
    if method:
        world.named("payment_method", method, "payment_method")
    method = method or default_method(world, invoice)
    refused = attempt(world, invoice, method) if method else charge_invoice(world, invoice, None)
    if refused:
        raise refused
    return invoice


def void(world: World, _params: Thing, invoice_id: str) -> Thing:
    """As if it had never been: what it took from the customer's balance goes back."""
    invoice = world.get("invoice", invoice_id)
    _check_can_leave(invoice, {"open", "uncollectible"}, "void")
    customer = world.things[invoice["customer"]]
    taken = (invoice["ending_balance"] or 0) - invoice["starting_balance"]
    _set_balance(world, customer, customer["balance"] - taken)
    close_intent(world, invoice, "void_invoice")
    return _close(world, invoice, "void", "voided_at", "invoice.voided")


def mark_uncollectible(world: World, _params: Thing, invoice_id: str) -> Thing:
    invoice = world.get("invoice", invoice_id)
    _check_can_leave(invoice, {"open"}, "mark as uncollectible")
    _close(world, invoice, "uncollectible", "marked_uncollectible_at", "invoice.marked_uncollectible")
    after_payment(world, invoice)
    return invoice


def _check_can_leave(invoice: Thing, statuses: set[str], act: str) -> None:
    if invoice["status"] not in statuses:
        raise invalid(
            f"You can only {act} an invoice that is {' or '.join(sorted(statuses))}. This invoice is {invoice['status']}.",
            code="status_transition_invalid",
        )


def _close(world: World, invoice: Thing, status: str, stamp: str, event: str) -> Thing:
    stamps = {**invoice["status_transitions"], stamp: world.time_of(invoice)}
    fields = {"auto_advance": False, "next_payment_attempt": None, "status": status, "status_transitions": stamps}
    world.change(invoice, "invoice.updated", **fields)
    world.emit(event, invoice)
    return invoice
