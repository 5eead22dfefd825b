"""What is asked of Stripe, one call each, through the official SDK; never inside a database transaction.

An answer that can't be trusted to be one is `StripeUnavailable`: whether the call took effect is unknown, and the same call with
the same idempotency key will tell. The SDK's own retries are off: the outbox retries, and remembers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from meterbook.errors import CardDeclined, StripeRefused, StripeUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

API_VERSION = "2026-10-28.endive"
"""What the SDK of the lock file speaks; accounts may be set to another, each call names this one."""
TIMEOUT_S = 30
INVOICES_PER_PAGE = 100
SERVER_ERROR = 500
CHARGE = "meterbook_charge"
"""Metadata of our invoices and their items: which charge of which ledger they bill."""
SUBSCRIPTION = "meterbook_subscription"
"""The same: the subscription at Stripe whose overage it is."""


@dataclass(frozen=True, slots=True)
class StripeAccount:
    """How to reach an account. `webhook_secrets`: all that are live, two while one is replaced; `api_base` only for tests.

    Who only takes webhooks may leave the key out: then what an event does not tell by itself can't be asked for.
    """

    api_key: str = ""
    webhook_secrets: tuple[str, ...] = ()
    api_base: str | None = None
    timeout_s: float = TIMEOUT_S

    def __repr__(self) -> str:
        return f"StripeAccount(api_key={self.api_key[:8]}…, api_base={self.api_base})"


@dataclass(frozen=True, slots=True)
class InvoiceSeen:
    """An invoice as Stripe has it now. `status`: draft, open, paid, void or uncollectible; `subtotal_cents`: before tax and balance."""

    id: str
    status: str
    subtotal_cents: int
    currency: str


@dataclass(frozen=True, slots=True)
class InvoiceAsked:
    """What a charge is billed by. `charge` names it among all ledgers that share the account."""

    charge: str
    customer: str
    amount_cents: int
    currency: str
    description: str
    subscription: str | None

    @property
    def metadata(self) -> dict[str, str]:
        return {CHARGE: self.charge, **({SUBSCRIPTION: self.subscription} if self.subscription else {})}


@dataclass(frozen=True, slots=True)
class CustomerMade:
    """`is_live`: in the mode where money is real."""

    id: str
    is_live: bool


class StripeGateway:
    """Blocking; made for one account and safe to share among threads."""

    def __init__(self, account: StripeAccount) -> None:
        from stripe import RequestsClient, StripeClient

        self._client: Any = StripeClient(
            account.api_key,
            stripe_version=API_VERSION,
            max_network_retries=0,
            http_client=RequestsClient(timeout=account.timeout_s),
            base_addresses={"api": account.api_base} if account.api_base else {},
        ).v1

    # ------------------------------------------------------------------------------------------------------ invoices of charges

    def create_invoice(self, asked: InvoiceAsked, key: str) -> str:
        """An empty draft that Stripe leaves alone until we finalize it, and that takes up nothing else that is pending."""
        params = {
            "customer": asked.customer,
            "currency": asked.currency.lower(),
            "collection_method": "charge_automatically",
            "auto_advance": False,
            "pending_invoice_items_behavior": "exclude",
            "description": asked.description,
            "metadata": asked.metadata,
        }
        with outcomes(is_keyed=True):
            return str(self._client.invoices.create(params, _keyed(key)).id)

    def add_item(self, asked: InvoiceAsked, invoice: str, key: str) -> str:
        params = {
            "customer": asked.customer,
            "invoice": invoice,
            "amount": asked.amount_cents,
            "currency": asked.currency.lower(),
            "description": asked.description,
            "metadata": asked.metadata,
        }
        with outcomes(is_keyed=True):
            return str(self._client.invoice_items.create(params, _keyed(key)).id)

    def finalize_invoice(self, invoice: str, key: str) -> InvoiceSeen:
        """From here on Stripe goes on by itself: it tries again to be paid, and tells by webhook."""
        with outcomes(is_keyed=True):
            return _seen(self._client.invoices.finalize_invoice(invoice, {"auto_advance": True}, _keyed(key)))

    def pay_invoice(self, invoice: str, key: str) -> InvoiceSeen:
        """Raises `CardDeclined`: the invoice stays open, and Stripe tries again."""
        with outcomes(is_keyed=True):
            return _seen(self._client.invoices.pay(invoice, {}, _keyed(key)))

    def retrieve_invoice(self, invoice: str) -> InvoiceSeen:
        with outcomes():
            return _seen(self._client.invoices.retrieve(invoice))

    def find_invoice(self, asked: InvoiceAsked, since: datetime) -> str | None:
        """The invoice of a charge, by our metadata; the list, unlike the search, shows what has just been made."""
        params = {
            "customer": asked.customer,
            "created": {"gte": int(since.timestamp()) - 3600},  # clocks differ
            "limit": INVOICES_PER_PAGE,
        }
        with outcomes():
            for each in self._client.invoices.list(params).auto_paging_iter():
                if _metadata(each).get(CHARGE) == asked.charge:
                    return str(each.id)
        return None

    def find_item(self, asked: InvoiceAsked, invoice: str) -> str | None:
        with outcomes():
            for each in self._client.invoice_items.list({"invoice": invoice, "limit": 100}).auto_paging_iter():
                if _metadata(each).get(CHARGE) == asked.charge:
                    return str(each.id)
        return None

    # ---------------------------------------------------------------------------------------------------- a rehearsal's customer

    def create_customer(self, name: str, payment_method: str, key: str) -> CustomerMade:
        params = {
            "name": name,
            "payment_method": payment_method,
            "invoice_settings": {"default_payment_method": payment_method},
        }
        with outcomes(is_keyed=True):
            made = self._client.customers.create(params, _keyed(key))
            return CustomerMade(str(made.id), bool(made.livemode))

    def delete_customer(self, customer: str) -> None:
        with outcomes():
            self._client.customers.delete(customer)

    def void_invoice(self, invoice: str) -> InvoiceSeen:
        """Nobody is asked for it any more."""
        with outcomes():
            return _seen(self._client.invoices.void_invoice(invoice))

    def delete_draft(self, invoice: str) -> None:
        with outcomes():
            self._client.invoices.delete(invoice)

    # ------------------------------------------------------------------------------------------------------------ subscriptions

    def retrieve_subscription(self, subscription: str) -> Mapping[str, Any]:
        """As Stripe has it now, in its own shape."""
        with outcomes():
            return _plain(self._client.subscriptions.retrieve(subscription))

    def retrieve_charge(self, charge: str) -> Mapping[str, Any]:
        """A payment, in Stripe's own shape: a dispute names nothing else."""
        with outcomes():
            return _plain(self._client.charges.retrieve(charge))

    def cancel_subscription(self, subscription: str) -> None:
        """At once, without proration. Raises `StripeRefused` for one that has ended."""
        with outcomes():
            self._client.subscriptions.cancel(subscription, {"prorate": False, "invoice_now": False})

    def set_cancel_at_period_end(self, subscription: str, *, cancels: bool) -> None:
        """Says what is to hold; saying it again changes nothing, so it needs no key."""
        with outcomes():
            self._client.subscriptions.update(subscription, {"cancel_at_period_end": cancels})

    def set_quantity(self, subscription: str, item: str, quantity: int, *, is_charged: bool) -> None:
        """Of one item. `is_charged`: Stripe asks for the rest of the period at once; else nothing changes before the next one."""
        params = {
            "items": [{"id": item, "quantity": quantity}],
            "proration_behavior": "always_invoice" if is_charged else "none",
        }
        with outcomes():
            self._client.subscriptions.update(subscription, params)


@contextmanager
def outcomes(*, is_keyed: bool = False) -> Iterator[None]:
    """The SDK's errors as ours. Who is turned away at the door, by the API key, was not answered under the idempotency key."""
    import stripe

    try:
        yield
    except stripe.CardError as error:
        raise CardDeclined(f"{error.code}: {error.user_message}") from error
    except (stripe.InvalidRequestError, stripe.AuthenticationError, stripe.PermissionError) as error:
        is_answer = is_keyed and isinstance(error, stripe.InvalidRequestError)
        raise StripeRefused(f"{type(error).__name__}: {error.user_message}", is_answer=is_answer) from error
    except stripe.StripeError as error:
        status = error.http_status or 0
        what = f"{type(error).__name__}: {error.user_message or status}"
        raise StripeUnavailable(what, is_answer=is_keyed and status >= SERVER_ERROR) from error


def _keyed(key: str) -> dict[str, str]:
    return {"idempotency_key": key}


def _seen(invoice: Any) -> InvoiceSeen:
    return InvoiceSeen(str(invoice.id), str(invoice.status), int(invoice.subtotal), str(invoice.currency).upper())


def _metadata(thing: Any) -> Mapping[str, Any]:
    found = getattr(thing, "metadata", None)
    return _plain(found) if found is not None else {}


def _plain(thing: Any) -> dict[str, Any]:
    plain: dict[str, Any] = thing.to_dict()
    return plain
