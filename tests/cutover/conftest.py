"""A legacy product's tables beside a migrated ledger."""

import psycopg
import pytest

from tests.legacy_product.history import SCHEMA


@pytest.fixture
def legacy_url(database_url: str) -> str:
    """The empty tables of the product, in the database of the ledger."""
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute(SCHEMA.read_bytes())
    return database_url
