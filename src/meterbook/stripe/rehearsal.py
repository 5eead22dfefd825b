"""Bills an account in test mode once, the way the relay does, and cleans up: does Stripe take what it will be sent?"""

from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from uuid import uuid4

from meterbook.errors import MeterbookError, StripeRefused
from meterbook.stripe.gateway import InvoiceAsked, InvoiceSeen, StripeGateway

TEST_KEYS = ("sk_test_", "rk_test_")
CARD = "pm_card_visa"
"""Stripe's own, which pays in test mode without a card."""
CENTS = 123

Say = Callable[[str, str], None]
"""Called with a step and what came of it."""


def rehearse(gateway: StripeGateway, currency: str, say: Say) -> None:
    """One invoice paid, one voided. Raises `StripeRefused`, `StripeUnavailable`, `CardDeclined`, when what was made is cleaned up."""
    run = f"check:{uuid4()}"
    with ExitStack() as undo:
        made = gateway.create_customer("meterbook stripe check", CARD, f"{run}:customer")
        undo.callback(_delete_customer, gateway, made.id, say)
        if made.is_live:
            raise StripeRefused("the account answered in live mode, where money is real: nothing is billed")
        say("customer", f"{made.id}, who pays with Stripe's test card")
        paid = _opened(gateway, _asked(f"{run}:paid", made.id, currency), say, undo)
        say("pay", f"{paid.id} is {gateway.pay_invoice(paid.id, f'{run}:pay').status}")
        voided = _opened(gateway, _asked(f"{run}:void", made.id, currency), say, undo)
        say("void", f"{voided.id} is {gateway.void_invoice(voided.id).status}")


def _asked(charge: str, customer: str, currency: str) -> InvoiceAsked:
    return InvoiceAsked(charge, customer, CENTS, currency, "meterbook stripe check: nobody is asked for this", None)


def _opened(gateway: StripeGateway, asked: InvoiceAsked, say: Say, undo: ExitStack) -> InvoiceSeen:
    """Create, item, finalize; and on the way what the relay counts on: the same key gives the same, and metadata find it in the list."""
    key, since = f"{asked.charge}:create", datetime.now(UTC)
    made: list[str] = []
    undo.callback(_clear_away, gateway, asked, since, made, say)
    made.append(invoice := gateway.create_invoice(asked, key))
    say("create", f"{invoice}, a draft")
    _expect(gateway.create_invoice(asked, key), invoice, "the same key made another invoice")
    say("again", f"{invoice}, by the same idempotency key")
    _expect(gateway.find_invoice(asked, since), invoice, "the list does not show the invoice by its metadata")
    say("look up", f"{invoice}, by its metadata")
    say("item", f"{gateway.add_item(asked, invoice, f'{asked.charge}:item')}, {CENTS} cents {asked.currency}")
    seen = gateway.finalize_invoice(invoice, f"{asked.charge}:finalize")
    _expect((seen.subtotal_cents, seen.currency), (CENTS, asked.currency), f"{invoice} asks for something else")
    say("finalize", f"{seen.id} is {seen.status}")
    return seen


def _expect(found: object, wanted: object, otherwise: str) -> None:
    if found != wanted:
        raise StripeRefused(f"{otherwise}: {found} instead of {wanted}")


def _clear_away(gateway: StripeGateway, asked: InvoiceAsked, since: datetime, made: list[str], say: Say) -> None:
    """Where a step failed an invoice would go on to be collected; also one whose making was not answered."""
    invoice = made[0] if made else None
    try:
        invoice = invoice or gateway.find_invoice(asked, since)
        if invoice is None:
            return
        status = gateway.retrieve_invoice(invoice).status
        if status == "draft":
            gateway.delete_draft(invoice)
            say("clean up", f"{invoice} deleted")
        elif status == "open":
            say("clean up", f"{invoice} is {gateway.void_invoice(invoice).status}")
    except MeterbookError as error:
        say("clean up", f"{invoice or 'an invoice'} is left, void it in the dashboard: {error}")


def _delete_customer(gateway: StripeGateway, customer: str, say: Say) -> None:
    try:
        gateway.delete_customer(customer)
        say("clean up", f"{customer} deleted")
    except MeterbookError as error:
        say("clean up", f"{customer} is left, delete it in the dashboard: {error}")
