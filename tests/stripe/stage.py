"""The ledger and the tests' Stripe on one clock: what Stripe does its webhooks bring in, what the ledger charges the relay bills there."""

import time
from dataclasses import dataclass, field, replace
from datetime import datetime

from stripe import StripeClient

from meterbook import Book, Catalog, MeterbookError
from meterbook.demo.play import SettableClock
from tests.stripe_server.deliveries import Delivery
from tests.stripe_server.server import StripeServer


@dataclass
class Stage:
    book: Book
    server: StripeServer
    client: StripeClient
    clock: SettableClock
    told: int = 0
    states: list[tuple[str, str]] = field(default_factory=list)

    async def hear(self) -> None:
        """Every webhook that was not delivered yet, freshly signed; what is refused comes once more, after the others."""
        deliveries = self.server.deliveries[self.told :]
        self.told += len(deliveries)
        refused = []
        for each in deliveries:
            try:
                await self._deliver(each)
            except MeterbookError:
                refused.append(each)
        for each in refused:
            await self._deliver(each)

    async def _deliver(self, each: Delivery) -> None:
        applied = await self.book.apply_stripe_event(each.body, each.signature(at=int(time.time())))
        self.states.append((applied.kind, applied.state))

    async def go_to(self, at: datetime) -> None:
        self.server.advance(at)
        self.clock.now = at
        await self.hear()
        await self.book.sweep()
        await self.book.relay()
        await self.hear()

    def invoices(self) -> list[tuple[int, str]]:
        """Ours: cents and status, oldest first."""
        ours = [each for each in self.server.things("invoice") if each["metadata"].get("meterbook_charge")]
        return [(each["subtotal"], each["status"]) for each in ours]


def with_price(catalog: Catalog, plan: str, price: str) -> Catalog:
    plans = [replace(each, prices=(price,)) if each.code == plan else each for each in catalog.plans]
    return replace(catalog, plans=tuple(plans))
