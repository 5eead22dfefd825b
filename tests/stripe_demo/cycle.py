"""Ada's summer: she subscribes, uses, reaches the threshold, is renewed and closed, does not pay, pays, disputes, wins, and leaves."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import meterbook
from meterbook import load_catalog
from meterbook.demo.play import DemoClock
from meterbook.stripe.gateway import StripeAccount
from tests.ledger import P1, P2, utc
from tests.stripe.stage import Stage, with_price
from tests.stripe_demo.screen import Screen
from tests.stripe_server.deliveries import SECRET
from tests.stripe_server.playing import Shop
from tests.stripe_server.server import API_KEY, StripeServer

ADA = "user:ada"
GRACE = timedelta(hours=2)
"""A close waits for an hour after the end; two have passed."""


async def play_cycle(database_url: str | None, home: Path, say: Callable[[str], None]) -> None:
    """On the database, or on an embedded one under `home`. Raises AssertionError if the books and Stripe don't agree at the end."""
    with StripeServer(P1[0], name="demo") as server:
        shop = Shop(server, server.client())
        price = shop.price(2500)
        account = StripeAccount(API_KEY, (SECRET,), server.url)
        clock = DemoClock(P1[0])
        catalog = with_price(load_catalog(), "pro_6000", price.id)
        async with meterbook.open(database_url, home=home, clock=clock, catalog=catalog, stripe=account) as book:
            stage = Stage(book, server, shop.client, clock)
            await _Story(stage, shop, Screen(stage, ADA, say), price.id).play()


class _Story:
    def __init__(self, stage: Stage, shop: Shop, screen: Screen, price: str) -> None:
        self.stage, self.shop, self.screen, self.price = stage, shop, screen, price
        self.customer = shop.customer()

    async def play(self) -> None:
        self.screen.begin(load_catalog().plan("pro_6000"))
        subscription = await self._subscribe()
        await self._use_and_reach_the_threshold()
        await self._renew_and_close()
        await self._fail_and_pay()
        await self._dispute_and_win()
        await self._cancel(subscription)
        await self.screen.end()

    async def _use(self, amount: str, at: datetime) -> None:
        """At its own time, which the ledger's clock has reached by then."""
        await self.stage.go_to(at)
        key = f"ada {at:%m-%d}"
        await self.stage.book.record(
            "ada", amount=amount, source="workflow", description="gpt-4o", event_key=key, occurred_at=at
        )

    async def _subscribe(self) -> str:
        price = self.stage.client.v1.prices.retrieve(self.price)
        made = self.shop.subscription(self.customer, price, metadata={"billing_entity": ADA})
        await self.stage.hear()
        await self.stage.book.set_limit(ADA, "200.00")
        await self.screen.show(
            "subscribe", "Ada subscribes to pro_6000 at Stripe, which asks for its price. Her limit she sets to 200.00."
        )
        return made.id

    async def _use_and_reach_the_threshold(self) -> None:
        await self._use("60.00", utc(2026, 6, 2))
        await self.stage.go_to(utc(2026, 6, 3))
        await self.screen.show(
            "use", "60.00 of usage: beyond what is included, below the threshold. Nothing is asked for."
        )
        await self._use("75.50", utc(2026, 6, 9))
        await self.stage.go_to(utc(2026, 6, 10))
        await self.screen.show("threshold", "75.50 more: what is due reaches 100.00 and is asked for at once.")

    async def _renew_and_close(self) -> None:
        await self._use("9.75", utc(2026, 6, 28))
        await self.stage.go_to(P2[0] + GRACE)
        await self.screen.show(
            "renew and close",
            "9.75 more on the 28th. Stripe renews at midnight; an hour after the end the clock closes June, and the rest is asked for.",
        )

    async def _fail_and_pay(self) -> None:
        self.stage.server.decline(self.customer.id)
        await self._use("142.40", utc(2026, 7, 9))
        await self.stage.go_to(utc(2026, 7, 10))
        await self.screen.show(
            "fail", "142.40 in July, and the card is declined: the invoice stays open, and Ada is stopped."
        )
        self.stage.server.accept(self.customer.id)
        (unpaid,) = [each["id"] for each in self.stage.server.things("invoice") if each["status"] == "open"]
        self.stage.client.v1.invoices.pay(unpaid)
        await self.stage.hear()
        await self.screen.show("pay", "Ada pays that invoice with another card: she goes on.")

    async def _dispute_and_win(self) -> None:
        dispute = self.stage.server.dispute(self.stage.server.things("charge")[-1]["id"])
        await self.stage.hear()
        await self.screen.show("dispute", "Her bank disputes that payment: Ada is stopped, whatever else is paid.")
        self.stage.server.close_dispute(dispute["id"], "won")
        await self.stage.hear()
        await self.screen.show("win", "The dispute is won: she goes on, and nothing of what was billed has changed.")

    async def _cancel(self, subscription: str) -> None:
        await self._use("8.20", utc(2026, 7, 18))
        await self.stage.go_to(utc(2026, 7, 20))
        self.stage.client.v1.subscriptions.cancel(subscription)
        await self.stage.go_to(utc(2026, 7, 20) + GRACE)
        await self.screen.show(
            "cancel", "8.20 more, and Ada ends it on the 20th: July ends there, and its rest is asked for. She is free."
        )
