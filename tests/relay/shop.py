"""A customer with a charge to deliver, and what Stripe then has."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from meterbook.book import Book
from meterbook.core.ledgers import DeliveryState
from tests.bills import lump, pays
from tests.conftest import Clock
from tests.stripe_server.server import StripeServer


@dataclass
class Shop:
    book: Book
    clock: Clock
    stripe_server: StripeServer

    def customer(self, card: str = "pm_card_visa") -> str:
        given: Any = {"payment_method": card, "invoice_settings": {"default_payment_method": card}}
        return self.stripe_server.client().v1.customers.create(given).id

    async def charge(self, user: str = "u", dollars: int = 150, card: str = "pm_card_visa") -> str:
        """A threshold charge of `dollars`, waiting in the outbox; gives the customer."""
        customer = self.customer(card)
        await pays(self.book, f"user:{user}", "pro_6000", stripe_customer=customer)
        await lump(self.book, user, f"{30 + dollars}.25")  # 30 are included, 0.25 is refreshed
        assert (await self.book.bill_threshold(f"user:{user}")).charged_cents == dollars * 100
        return customer

    async def delivery(self, kind: str = "charge") -> DeliveryState:
        """The newest of its kind."""
        return next(row for row in await self.book.deliveries() if row.kind == kind)

    def pass_time(self, time: timedelta) -> None:
        self.clock.now += time
        self.stripe_server.advance(self.clock.now)

    async def until_settled(self, patience: timedelta = timedelta(days=7)) -> DeliveryState:
        """The relay runs whenever something is due, as the worker would, until the charge is delivered or given up."""
        ends = self.clock.now + patience
        while (row := await self.delivery()).state in ("due", "leased"):
            assert self.clock.now < ends, f"still {row}"
            if row.due_at > self.clock.now:
                self.pass_time(row.due_at - self.clock.now)
            await self.book.relay()
        return row

    def invoices(self, customer: str | None = None) -> list[tuple[str, int, int]]:
        """Status, cents asked and cents paid of each invoice that Stripe has, of one customer or of all."""
        return [
            (each["status"], each["subtotal"], each["amount_paid"])
            for each in self.stripe_server.things("invoice")
            if customer in (None, each["customer"])
        ]
