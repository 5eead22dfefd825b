"""A Stripe at the first of June, and the SDK that speaks to it."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.stripe_server.playing import Shop
from tests.stripe_server.server import StripeServer


@pytest.fixture
def stripe_server() -> Iterator[StripeServer]:
    with StripeServer(datetime(2026, 6, 1, tzinfo=UTC)) as server:
        yield server


@pytest.fixture
def shop(stripe_server: StripeServer) -> Shop:
    return Shop(stripe_server, stripe_server.client())
