"""Charging cards for invoices: intents, charges, what a bank answers; and disputes of what was charged."""

from typing import Literal

from tests.stripe_server import shapes
from tests.stripe_server.cards import Card
from tests.stripe_server.refusals import Refused, declined, invalid
from tests.stripe_server.world import Thing, World

DisputeOutcome = Literal["won", "lost", "warning_closed"]
_FUNDS_BACK = {"won": "charge.dispute.funds_reinstated"}


def open_intent(world: World, invoice: Thing) -> None:
    """An invoice that asks for money gets an intent to be paid by, and the link between the two."""
    at = world.time_of(invoice)
    intent = shapes.payment_intent(
        world.new_id("pi"),
        at,
        of_customer=invoice["customer"],
        amount=invoice["amount_due"],
        currency=invoice["currency"],
    )
    intent["description"] = invoice["description"] or f"Payment for Invoice {invoice['number']}"
    world.add(intent)
    world.add(shapes.invoice_payment(world.new_id("inpay"), at, invoice_id=invoice["id"], intent=intent))
    world.emit("payment_intent.created", intent)


def payment_of(world: World, invoice: Thing) -> Thing | None:
    return next((payment for payment in world.of("invoice_payment") if payment["invoice"] == invoice["id"]), None)


def _intent_of(world: World, payment: Thing) -> Thing:
    return world.things[payment["payment"]["payment_intent"]]


def default_method(world: World, invoice: Thing) -> str | None:
    """The invoice's own, its subscription's, its customer's: the first there is."""
    subscription = world.find("subscription", subscription_of(invoice))
    customer = world.things[invoice["customer"]]
    choices = (
        invoice["default_payment_method"],
        subscription and subscription["default_payment_method"],
        customer["invoice_settings"]["default_payment_method"],
    )
    return next((str(choice) for choice in choices if choice), None)


def subscription_of(invoice: Thing) -> str | None:
    details = (invoice["parent"] or {}).get("subscription_details") or {}
    found = details.get("subscription")
    return str(found) if found else None


def answer_of(world: World, method_id: str) -> Card:
    """How the bank will answer a charge; `next_card` stands in once."""
    card, world.next_card = world.next_card or world.cards[method_id], None
    return card


def charge_invoice(world: World, invoice: Thing, method_id: str | None) -> Refused | None:
    """One attempt; what refused it, or None when the money is there."""
    payment = payment_of(world, invoice)
    if method_id is None or payment is None:
        return invalid(
            "There is no `default_payment_method` set on this Customer or Invoice. Please set a `default_payment_method`."
        )
    intent, method, at = _intent_of(world, payment), world.things[method_id], world.time_of(invoice)
    card = answer_of(world, method_id)
    charge = world.add(shapes.charge(world.new_id("ch"), at, intent=intent, method=method))
    if card.refusal:
        return _fail(world, intent, charge, card.refusal)
    _succeed(world, payment, intent, charge)
    if card.disputed:
        open_dispute(world, charge["id"], card.disputed)
    return None


def _fail(world: World, intent: Thing, charge: Thing, refusal: tuple[str, str]) -> Refused:
    code, decline_code = refusal
    refused = declined(code, decline_code, charge=charge["id"])
    error = refused.body["error"]
    charge.update(
        amount_captured=0,
        captured=False,
        failure_code=code,
        failure_message=error["message"],
        outcome={
            "network_status": "declined_by_network",
            "reason": decline_code,
            "seller_message": None,
            "type": "issuer_declined",
        },
        paid=False,
        status="failed",
    )
    world.emit("charge.failed", charge)
    world.change(intent, "payment_intent.payment_failed", last_payment_error=dict(error), latest_charge=charge["id"])
    return refused


def _succeed(world: World, payment: Thing, intent: Thing, charge: Thing) -> None:
    at = world.time_of(charge)
    charge["outcome"] = {
        "network_status": "approved_by_network",
        "reason": None,
        "seller_message": "Payment complete.",
        "type": "authorized",
    }
    world.emit("charge.succeeded", charge)
    world.change(
        intent,
        "payment_intent.succeeded",
        amount_received=intent["amount"],
        last_payment_error=None,
        latest_charge=charge["id"],
        payment_method=charge["payment_method"],
        status="succeeded",
    )
    settled = {"canceled_at": None, "paid_at": at}
    paid = {"amount_paid": intent["amount"], "status": "paid", "status_transitions": settled}
    payment.update(paid)
    world.emit("invoice_payment.paid", payment)


def close_intent(world: World, invoice: Thing, reason: str) -> None:
    """An invoice that will not be paid by card any more: voided, forgiven, paid elsewhere."""
    payment = payment_of(world, invoice)
    if payment is None or payment["status"] != "open":
        return
    at = world.time_of(invoice)
    payment.update(status="canceled", status_transitions={"canceled_at": at, "paid_at": None})
    changes = {"canceled_at": at, "cancellation_reason": reason, "status": "canceled"}
    world.change(_intent_of(world, payment), "payment_intent.canceled", **changes)


def open_dispute(world: World, charge_id: str, status: str = "needs_response") -> Thing:
    """The cardholder objects. `warning_needs_response` is an inquiry: no money is taken back yet."""
    charge = world.named("charge", charge_id, "charge")
    charge["disputed"] = True
    dispute = world.add(shapes.dispute(world.new_id("du"), world.time_of(charge), charge, status))
    world.emit("charge.dispute.created", dispute)
    if not status.startswith("warning"):
        world.emit("charge.dispute.funds_withdrawn", dispute)
    return dispute


def close_dispute(world: World, dispute_id: str, outcome: DisputeOutcome) -> Thing:
    dispute = world.get("dispute", dispute_id)
    if dispute["status"] in {"won", "lost", "warning_closed"}:
        raise invalid("This dispute is already closed")
    world.change(dispute, "charge.dispute.closed", status=outcome)
    if outcome in _FUNDS_BACK:
        world.emit(_FUNDS_BACK[outcome], dispute)
    return dispute
