"""A mapping meets the live tables before anything else happens."""

from datetime import UTC, datetime

import psycopg
import pytest

from meterbook.core.legacy_mapping import parse_mapping
from meterbook.errors import InvalidMapping
from meterbook.mappings import load_mapping
from meterbook.postgres.cutover import attach, value_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ORIGIN = load_mapping()
COUNTER = '[counter]\nfrom = "public.user_stats"\nuser_id = "user_id"\n'


async def problems_of(url: str, text: str) -> list[str]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        with pytest.raises(InvalidMapping) as refused:
            await attach(conn, parse_mapping(text))
    return list(refused.value.problems)


async def test_the_shipped_example_fits_the_origins_tables(legacy_url: str) -> None:
    """Every expression of it can be computed and has the type that is wanted."""
    async with await psycopg.AsyncConnection.connect(legacy_url, autocommit=True) as conn:
        tables = await attach(conn, ORIGIN)
        assert tables.has_bare_times
        assert await value_of(conn, "count_orphans", {"since": tables.earliest(EPOCH)}) == 0


async def test_a_column_that_is_not_there_is_named_with_those_that_are(legacy_url: str) -> None:
    """The error carries the field, what PostgreSQL says, and the columns to choose from."""
    (problem,) = await problems_of(legacy_url, COUNTER + 'running = "current_cost"\n')
    assert problem.startswith("counter.running: 'current_cost': column \"current_cost\" does not exist")
    assert "current_period_cost" in problem


async def test_a_table_that_is_not_there_is_named(legacy_url: str) -> None:
    """One error for the table, not one a field."""
    said = await problems_of(legacy_url, COUNTER.replace("user_stats", "stats") + 'running = "x"\n')
    assert said == ["counter.from: 'public.stats': relation \"public.stats\" does not exist"]


async def test_types_are_checked_against_the_live_schema(legacy_url: str) -> None:
    """A time without its zone is no time: the fix is in the error."""
    (problem,) = await problems_of(legacy_url, COUNTER + 'running = "1"\nkept_at = "last_active"\n')
    assert problem == (
        "counter.kept_at: 'last_active' is timestamp, not a time with a time zone: write "
        "kept_at = \"(last_active) at time zone 'UTC'\" (or the zone in which the column was written)"
    )


async def test_an_expression_may_be_a_statement_in_parentheses_but_not_two_columns(legacy_url: str) -> None:
    """What would give more than one value is refused."""
    said = await problems_of(legacy_url, COUNTER + 'running = "1, 2"\n')
    assert len(said) == 1
    assert said[0].startswith("counter.running: '1, 2': gives several columns; write one expression")


async def test_what_is_not_mapped_is_an_empty_table(legacy_url: str) -> None:
    """A product without an audit log is no error."""
    async with await psycopg.AsyncConnection.connect(legacy_url, autocommit=True) as conn:
        await attach(conn, parse_mapping(COUNTER + 'running = "current_period_cost"\n'))
        assert await value_of(conn, "list_organizations", {"after": "", "rows": 1}) is None
