"""Opening the ledger that a command's options name: the embedded one, one by URL, or the demo's."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection

import meterbook
from meterbook.book import Book
from meterbook.catalogs import load_catalog
from meterbook.cli.command import Session
from meterbook.demo import cast
from meterbook.demo.play import DemoClock
from meterbook.postgres.embedded import embedded
from meterbook.postgres.migrate import migrate
from meterbook.postgres.refusals import refusals
from meterbook.stripe.gateway import StripeAccount

CONNECT_TIMEOUT_S = 10
DEMO_FOLDER = "demo"


@asynccontextmanager
async def open_book(session: Session) -> AsyncIterator[Book]:
    """The embedded ledger is migrated first; one by URL must be."""
    if session.demo:
        async with open_demo(session, DemoClock(cast.CLOSED_AT)) as book:
            yield book
        return
    account = stripe_account()
    async with meterbook.open(session.url, catalog=session.catalog, home=session.home, stripe=account) as book:
        yield book


def stripe_account() -> StripeAccount | None:
    """From METERBOOK_STRIPE_API_KEY and METERBOOK_STRIPE_WEBHOOK_SECRETS (several while one is replaced, by commas)."""
    api_key = os.environ.get("METERBOOK_STRIPE_API_KEY", "")
    secrets = os.environ.get("METERBOOK_STRIPE_WEBHOOK_SECRETS", "")
    if not (api_key or secrets):
        return None
    return StripeAccount(api_key, tuple(filter(None, map(str.strip, secrets.split(",")))), stripe_api_base())


def stripe_api_base() -> str | None:
    """METERBOOK_STRIPE_API_BASE: where Stripe is, in tests; else Stripe's own address."""
    return os.environ.get("METERBOOK_STRIPE_API_BASE") or None


@asynccontextmanager
async def open_demo(session: Session, clock: DemoClock) -> AsyncIterator[Book]:
    """In a folder of its own, never where METERBOOK_URL points: nobody's real ledger gets made-up rows."""
    async with meterbook.open(None, catalog=session.catalog, clock=clock, home=session.home / DEMO_FOLDER) as book:
        yield book


async def migrate_ledger(session: Session) -> list[str]:
    """Applies what is missing, and names it."""
    plans = load_catalog(session.catalog)
    with _server(session) as url, refusals():
        async with await _connect(url) as conn:
            return await migrate(conn, currency=plans.currency, free_period=plans.free_period)


async def _connect(url: str) -> AsyncConnection[Any]:
    return await AsyncConnection.connect(url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S)


def _server(session: Session) -> AbstractContextManager[str]:
    if session.demo:
        return _embedded(session.home / DEMO_FOLDER)
    return _embedded(session.home) if session.url is None else nullcontext(session.url)


@contextmanager
def _embedded(home: Path) -> Iterator[str]:
    with embedded(home) as engine:
        yield engine.url
