"""A book that takes webhooks."""

from collections.abc import AsyncIterator

import pytest

import meterbook
from meterbook import Book
from tests.conftest import Clock
from tests.stripe.hooks import ACCOUNT, priced


@pytest.fixture
async def book(database_url: str, clock: Clock) -> AsyncIterator[Book]:
    async with meterbook.open(database_url, clock=clock, catalog=priced(), stripe=ACCOUNT) as opened:
        yield opened
