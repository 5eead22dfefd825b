"""What PostgreSQL refuses, in our words: nothing of psycopg leaves the room but as a cause."""

import psycopg
import pytest

from meterbook.errors import (
    InProgress,
    InvalidRequest,
    InvalidUsage,
    LedgerUnavailable,
    MeterbookError,
    TransactionConflict,
    UnknownEntity,
)
from meterbook.postgres.refusals import BY_CONSTRAINT, BY_SQLSTATE, refusals
from tests.ledger import query


def raised(database_url: str, statement: str) -> MeterbookError:
    with pytest.raises(MeterbookError) as found, refusals():
        query(database_url, statement)
    return found.value


@pytest.mark.parametrize(
    ("sqlstate", "error", "retryable"),
    [
        ("40001", TransactionConflict, True),
        ("40P01", TransactionConflict, True),
        ("55P03", InProgress, True),
        ("MB020", UnknownEntity, False),
        ("57P01", LedgerUnavailable, True),
        ("53300", LedgerUnavailable, True),
        ("42P01", LedgerUnavailable, True),
        ("22003", InvalidRequest, False),
    ],
)
def test_a_sqlstate_is_an_error_of_ours(
    server: str, sqlstate: str, error: type[MeterbookError], retryable: bool
) -> None:
    """With what PostgreSQL said, its cause kept, and whether to try again."""
    found = raised(server, f"do $$ begin raise exception using errcode = '{sqlstate}', message = 'said'; end $$")
    assert type(found) is error
    assert found.retryable is retryable
    assert "said" in str(found)
    assert isinstance(found.__cause__, psycopg.Error)


def test_each_constraint_of_the_table_exists(database_url: str) -> None:
    """A renamed constraint would lose its error."""
    names = {row[0] for row in query(database_url, "select conname from pg_constraint")}
    assert names >= BY_CONSTRAINT.keys()


def test_each_sqlstate_of_ours_is_raised_somewhere(database_url: str) -> None:
    """MB0xx codes of the table occur in a function."""
    ((sources,),) = query(
        database_url,
        "select string_agg(prosrc, '') from pg_proc where pronamespace = 'meterbook'::regnamespace",
    )
    assert [code for code in BY_SQLSTATE if code.startswith("MB") and code not in sources] == []


def test_a_violated_constraint_names_the_field(database_url: str) -> None:
    """As a problem of the entry."""
    found = raised(
        database_url,
        "insert into meterbook.usage_log"
        " (entity_id, recorded_at, key, period_id, actor_id, occurred_at, amount, category, source, description)"
        " values (1, now(), gen_random_uuid(), 1, 1, now(), 'NaN', 'model', 's', 'm')",
    )
    assert isinstance(found, InvalidUsage)
    assert [(problem.field, problem.code) for problem in found.problems] == [("amount", "invalid_amount")]


def test_a_server_that_does_not_answer_is_a_retryable_error() -> None:
    """Nobody listens there."""
    with pytest.raises(LedgerUnavailable), refusals():
        psycopg.connect("postgresql://127.0.0.1:1/nothing", connect_timeout=1)
