"""A legacy product's tables beside a migrated ledger."""

import psycopg
import pytest

from tests.conftest import Clock
from tests.ledger import P1, utc
from tests.legacy_product.history import SCHEMA, Product


@pytest.fixture
def legacy_url(database_url: str) -> str:
    """The empty tables of the product, in the database of the ledger."""
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute(SCHEMA.read_bytes())
    return database_url


@pytest.fixture
def product(legacy_url: str, clock: Clock) -> Product:
    """One person with a plan and 150.00 on the counter, on day ten."""
    made = Product()
    made.user("u")
    made.subscription("u", "pro_6000")
    made.charge("u", "150", P1[0])
    made.write(legacy_url)
    clock.now = utc(2026, 6, 11)
    return made
