"""A shop as the tests of this folder play it, through the real SDK."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stripe import Customer, Invoice, Price, StripeClient, Subscription

from tests.stripe_server.server import StripeServer

DAY_S = 86_400


def moment(month: int, day: int, hour: int = 0, year: int = 2026) -> int:
    """As Stripe writes it."""
    return int(datetime(year, month, day, hour, tzinfo=UTC).timestamp())


def plain(thing: Any) -> Any:
    """As JSON has it: the SDK's own mappings are equal to none."""
    return thing.to_dict()


@dataclass
class Shop:
    server: StripeServer
    client: StripeClient

    def customer(self, card: str = "pm_card_visa", **given: Any) -> Customer:
        params: Any = {"payment_method": card, "invoice_settings": {"default_payment_method": card}, **given}
        return self.client.v1.customers.create(params)

    def price(self, cents: int, interval: Any = "month") -> Price:
        return self.client.v1.prices.create(
            {
                "currency": "usd",
                "unit_amount": cents,
                "recurring": {"interval": interval},
                "product_data": {"name": "plan"},
            }
        )

    def subscription(self, customer: Customer, price: Price, quantity: int = 1, **given: Any) -> Subscription:
        params: Any = {"customer": customer.id, "items": [{"price": price.id, "quantity": quantity}], **given}
        return self.client.v1.subscriptions.create(params)

    def draft(self, customer: Customer, cents: int, **given: Any) -> Invoice:
        """An invoice with one item, as the relay makes it."""
        params: Any = {"customer": customer.id, "currency": "usd", **given}
        invoice = self.client.v1.invoices.create(params)
        self.client.v1.invoice_items.create(
            {"customer": customer.id, "invoice": invoice.id, "amount": cents, "currency": "usd"}
        )
        return self.client.v1.invoices.retrieve(invoice.id)

    def open(self, customer: Customer, cents: int, **given: Any) -> Invoice:
        return self.client.v1.invoices.finalize_invoice(self.draft(customer, cents, **given).id)

    def told(self) -> list[str]:
        """The kinds of the events so far, forgotten by this."""
        kinds = [delivery.kind for delivery in self.server.deliveries]
        self.server.deliveries.clear()
        return kinds

    def item_of(self, subscription: Subscription) -> Any:
        """`items` is a method of every object of the SDK that is a mapping."""
        return self.client.v1.subscriptions.retrieve(subscription.id)["items"].data[0]
