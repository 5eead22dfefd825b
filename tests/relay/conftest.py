"""A ledger whose charges go to a Stripe on loopback; the two clocks go together."""

from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta

import pytest

import meterbook
from meterbook.book import Book
from meterbook.stripe.gateway import StripeAccount
from tests.conftest import Clock
from tests.relay.shop import Shop
from tests.stripe_server.server import API_KEY, StripeServer


@pytest.fixture
def clock() -> Clock:
    return Clock(datetime.fromisoformat("2026-06-20T12:00:00+00:00"))


@pytest.fixture
def stripe_server(clock: Clock) -> Iterator[StripeServer]:
    with StripeServer(clock.now - timedelta(days=19)) as server:
        server.advance(clock.now)
        yield server


@pytest.fixture
def account(stripe_server: StripeServer) -> StripeAccount:
    return StripeAccount(API_KEY, api_base=stripe_server.url, timeout_s=0.5)


@pytest.fixture
async def book(database_url: str, clock: Clock, account: StripeAccount) -> AsyncIterator[Book]:
    async with meterbook.open(database_url, clock=clock, stripe=account) as opened:
        yield opened


@pytest.fixture
def shop(book: Book, clock: Clock, stripe_server: StripeServer) -> Shop:
    return Shop(book, clock, stripe_server)
