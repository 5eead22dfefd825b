"""`schema.sql` is the present: what all migrations, applied in order, add up to."""

import psycopg
import pytest

from tools.dump_schema import SCHEMA, dump_schema


@pytest.fixture
def version(database_url: str) -> int:
    with psycopg.connect(database_url) as conn:
        return conn.info.server_version // 10_000


def test_the_schema_is_what_the_migrations_add_up_to(database_url: str, version: int) -> None:
    """Regenerated, it is the same text; if this fails after a change of a migration, run `make schema`."""
    if version != 18:
        pytest.skip("pg_dump writes the same schema in other words for another version; it is kept for 18")
    assert dump_schema(database_url) == SCHEMA.read_text(encoding="utf-8")


def test_the_schema_does_not_depend_on_the_month(database_url: str, version: int) -> None:
    """Partitions of other months change nothing in it."""
    before = dump_schema(database_url) if version == 18 else ""
    with psycopg.connect(database_url, autocommit=True) as conn:
        made = conn.execute("select meterbook.ensure_partitions(24, '2040-01-01')").fetchone()
    assert made == (25,)
    assert before == (dump_schema(database_url) if version == 18 else "")
