"""What the hot statements read: indexes only, whatever a table holds."""

import re
from typing import Any

import psycopg
import pytest

from meterbook import Book
from meterbook.postgres.reading import SQL
from tests.ledger import subscribe, use

AT = "2026-06-20 12:00Z"
MANY = """
select meterbook.attribute((select array_agg('x' || n) from generate_series(1, 3000) n), at => '2026-06-20 12:00Z');
select count(*) from meterbook.record_usage(
  (select array_agg(meterbook.event_key('many ' || n)) from generate_series(1, 3000) n),
  (select array_agg(meterbook.event_key('print ' || n)) from generate_series(1, 3000) n),
  (select array_agg('x' || n) from generate_series(1, 3000) n), array_fill('s'::text, array[3000]),
  array_fill('m'::text, array[3000]), array_fill(1::numeric, array[3000]), at => '2026-06-20 12:00Z');
select count(*) from meterbook.compact(deltas_max => 1500);
"""
RECORD = """
select outcome from meterbook.record_usage(
  array[meterbook.event_key('{0} 1'), meterbook.event_key('{0} 2')], array[meterbook.event_key('p'), meterbook.event_key('p')],
  array['u', 'u'], array['s', 's'], array['m', 'm'], array[1.0, 2.0],
  occurred_ats => array['2026-06-02 12:00Z'::timestamptz, '2026-05-02 12:00Z'], at => '2026-06-20 12:00Z')
"""
RECORD_ONE = """
select outcome from meterbook.record_usage(
  array[meterbook.event_key('{0}')], array[meterbook.event_key('p')], array['u'], array['s'], array['m'], array[1.0],
  occurred_ats => array['2026-05-02 12:00Z'::timestamptz], at => '2026-06-20 12:00Z')
"""


@pytest.fixture
async def filled(book: Book, database_url: str) -> Any:
    """A client-side connection to a ledger of 3 000 other customers, half of their deltas unfolded."""
    await subscribe(book, "user:u")
    await use(book, "u", "1")
    with psycopg.connect(database_url, autocommit=True, cursor_factory=psycopg.ClientCursor) as conn:
        conn.execute(MANY.encode())
        conn.execute("vacuum analyze")
        yield conn


def scanned(conn: psycopg.Connection[Any], plan: str) -> set[str]:
    """Tables with many rows that a plan reads from end to end."""
    large = conn.execute(
        "select relname from pg_class where relnamespace = 'meterbook'::regnamespace and reltuples > 500"
    )
    return set(re.findall(r"Seq Scan on (?:\w+\.)?(\w+)", plan)) & {name for (name,) in large.fetchall()}


def explained(conn: psycopg.Connection[Any], statement: str) -> str:
    """The plans of a statement and of every statement inside its functions, as the server logs them."""
    notices: list[str] = []
    conn.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    conn.execute("load 'auto_explain'")
    for setting in ("log_min_duration = 0", "log_nested_statements = on", "log_analyze = on"):
        conn.execute(f"set auto_explain.{setting}".encode())
    conn.execute("set client_min_messages = log")
    conn.execute(statement.encode())
    return "\n".join(notices)


@pytest.mark.parametrize("statement", [RECORD, RECORD_ONE], ids=["batch", "single"])
def test_recording_reads_by_index_only(filled: Any, statement: str) -> None:
    """New keys and replays, of now and of another time: no scan of periods, actors, keys or entries."""
    plan = "".join(explained(filled, statement.format(key)) for key in ("new", "new"))
    assert "insert into meterbook.event_key" in plan
    assert scanned(filled, plan) == set()


def test_reading_usage_reads_by_index_only(filled: Any) -> None:
    """The running period, the last and one by its id."""
    ((period,),) = filled.execute("select max(id) from meterbook.billing_period where kind = 'dated'").fetchall()
    for said in ({"period": "current", "period_id": None}, {"period": str(period), "period_id": period}):
        bound = said | {"kind": "user", "external_id": "u", "at": AT}
        statement = psycopg.ClientCursor(filled).mogrify(SQL["read_period"], bound)
        assert scanned(filled, explained(filled, statement)) == set()


@pytest.mark.parametrize("by_sums", [False, True])
def test_a_page_of_entries_reads_by_index_only(filled: Any, *, by_sums: bool) -> None:
    """One customer's rows, not everybody's, whether the summary is counted from the rows or taken from kept sums."""
    names = ("actor", "workspace", "source", "category", "start", "end", "period", "after_time", "after_key")
    bound = dict.fromkeys(names) | {"kind": "user", "external_id": "u", "rows": 51, "summary": True, "by_sums": by_sums}
    statement = psycopg.ClientCursor(filled).mogrify(SQL["list_entries"], bound)
    plan = explained(filled, statement)
    assert scanned(filled, plan) == set()
