"""Books over which applications' own connections come."""

from collections.abc import Iterator

import pytest

import meterbook.sync
from meterbook.sync import Book
from tests.conftest import Clock


@pytest.fixture
def sync_book(database_url: str, clock: Clock) -> Iterator[Book]:
    with meterbook.sync.open(database_url, clock=clock) as opened:
        yield opened
