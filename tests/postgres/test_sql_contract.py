"""The SQL functions as a contract of their own, for callers in any language (docs, type meterbook.recorded)."""

from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meterbook import Book
from meterbook.core.event_keys import of_event_key, of_fingerprint
from tests.ledger import amounts, count, holding, query, subscribe, use

EXAMPLE = """
select n, outcome, entity, amount from meterbook.record_usage(
  keys         => array[meterbook.event_key('run_9:gpt-4o:0')],
  fingerprints => array[meterbook.fingerprint('user_42', 'model', 'workflow', 'gpt-4o', 0.0123)],
  actors       => array['user_42'],
  sources      => array['workflow'],
  descriptions => array['gpt-4o'],
  amounts      => array[0.0123])
"""
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
AMOUNT = st.decimals(min_value=0, max_value=Decimal(10**12 - 1), places=12)


def call(database_url: str, *entries: tuple[str, str, str], **named: str) -> list[str]:
    """Outcomes of a call with (key, actor, amount) entries; `named` are further arguments as SQL."""
    said = {
        "keys": [f"meterbook.event_key('{key}')" for key, _, _ in entries],
        "fingerprints": [f"meterbook.fingerprint('{actor}', 'model', 's', 'm', {n})" for _, actor, n in entries],
        "actors": [f"'{actor}'" for _, actor, _ in entries],
        "sources": ["'s'"] * len(entries),
        "descriptions": ["'m'"] * len(entries),
        "amounts": [f"{amount}::numeric" for _, _, amount in entries],
    }
    arguments = {name: f"array[{', '.join(values)}]" for name, values in said.items()} | named
    arguments.setdefault("at", "'2026-06-20 12:00Z'")
    listed = ", ".join(f"{name} => {value}" for name, value in arguments.items())
    return [row[0] for row in query(database_url, f"select outcome from meterbook.record_usage({listed}) order by n")]


def test_the_example_of_the_docs_runs(database_url: str) -> None:
    """First contact: unattributed; then attribute, and again: inserted; and once more: replayed. By the database's own clock."""
    outcomes = [query(database_url, EXAMPLE)[0][1]]
    query(database_url, "select meterbook.attribute(actors => array['user_42'])")
    outcomes += [query(database_url, EXAMPLE)[0][1] for _ in range(2)]
    assert outcomes == ["unattributed", "inserted", "replayed"]
    assert amounts(database_url) == [Decimal("0.0123")]


async def test_each_outcome_of_the_type_can_be_reached(book: Book, database_url: str) -> None:
    """Those that the comment of meterbook.recorded names, and no other, each from a call that means it."""
    await use(book, "u", "1", "known")
    other = (await book.usage("user:other")).period.id
    future = "array['2026-06-20 12:05:00.000001Z'::timestamptz]"
    reached = {
        *call(database_url, ("a", "u", "1")),
        *call(database_url, ("a", "u", "1")),
        *call(database_url, ("a", "u", "2")),
        *call(database_url, ("a", "u", "2"), ("b", "u", "1")),
        *call(database_url, ("c", "nobody", "1")),
        *call(database_url, ("c", "u", "1"), workspaces="array['nowhere']"),
        *call(database_url, ("c", "u", "1"), entities="array['organization:nobody']"),
        *call(database_url, ("c", "u", "1"), entities="array['user:u']", payer_ids="array[-1]"),
        *call(database_url, ("c", "u", "1"), periods=f"array[{other}]"),
        *call(database_url, ("c", "u", "1"), occurred_ats=future),
        *call(database_url, ("c", "", "1")),
    }
    held = [EXAMPLE.replace("user_42", "u").replace("run_9:gpt-4o:0", "held")]
    async with holding(database_url, *held):
        statement = held[0].replace("0.0123", "7").replace("'u', 'model', 'workflow'", "'u', 'model', 'copilot'")
        reached.add(query(database_url, statement)[0][1])
    ((comment,),) = query(database_url, "select obj_description('meterbook.recorded'::regtype)")
    named = {part.split()[0] for part in comment.split("n from 1. ")[1].rstrip(".").split(" | ")}
    assert reached == named


async def test_a_refusal_leaves_the_callers_transaction_usable(book: Book, database_url: str) -> None:
    """It comes back as rows; what the caller did before and does after commits."""
    await use(book, "u", "1", "known")
    with psycopg.connect(database_url) as conn:
        conn.execute("create table work (done text)")
        conn.execute("insert into work values ('before')")
        refused = conn.execute(EXAMPLE.replace("user_42", "nobody").encode()).fetchall()
        conn.execute("insert into work values ('after')")
    assert refused[0][1] == "unattributed"
    assert query(database_url, "select done from work") == [("before",), ("after",)]


async def test_all_or_nothing(book: Book, database_url: str) -> None:
    """One refused entry: the others are not_written, which says that nothing is wrong with them."""
    await use(book, "u", "1", "known")
    call(database_url, ("a", "u", "1"))
    assert call(database_url, ("b", "u", "1"), ("a", "u", "2"), ("a", "u", "1"), ("c", "x", "1")) == [
        "not_written",
        "conflict",
        "replayed",
        "unattributed",
    ]
    assert count(database_url) == 2


async def test_a_key_twice_in_one_call_is_as_in_two_calls(book: Book, database_url: str) -> None:
    """The same: replayed. Something else: a conflict, for whoever comes second, and nothing is written."""
    await use(book, "u", "1", "known")
    assert call(database_url, ("a", "u", "1"), ("b", "u", "1"), ("a", "u", "1")) == ["inserted", "inserted", "replayed"]
    assert call(database_url, ("c", "u", "1"), ("d", "u", "1"), ("c", "u", "2")) == [
        "not_written",
        "not_written",
        "conflict",
    ]
    assert count(database_url) == 3


@pytest.mark.parametrize("amount", ["'NaN'", "'Infinity'", "'-Infinity'", "-1", "0", "1e12", "0.0000000000001"])
async def test_the_table_itself_refuses_what_is_no_money(book: Book, database_url: str, amount: str) -> None:
    """Whoever writes to it: the constraint is named like a sentence."""
    await use(book, "u", "1", "known")
    for entries in ([("a", "u", amount)], [("b", "u", "1"), ("a", "u", amount)]):
        with pytest.raises(psycopg.errors.CheckViolation) as refused:
            call(database_url, *entries)
        assert refused.value.diag.constraint_name in {"usage_log_amount_is_money", "usage_log_usage_is_positive"}
    assert count(database_url) == count(database_url, "event_key") == 1


async def test_the_ledger_is_append_only_for_everybody(book: Book, database_url: str) -> None:
    """Also for its owner and a superuser, also for a partition by its name: no update, no delete, no truncate."""
    await use(book, "u", "1")
    ((partition,),) = query(database_url, "select tableoid::regclass::text from meterbook.usage_log")
    for table in ("meterbook.usage_log", "meterbook.event_key", partition):
        for statement in (f"update {table} set amount = 2", f"delete from {table}", f"truncate {table}"):
            with pytest.raises(psycopg.Error, match="append-only"):
                query(database_url, statement)
    assert amounts(database_url) == [1]


@pytest.fixture
def shared(databases: Any) -> Any:
    """One connection for many examples."""
    with databases.fresh() as url, psycopg.connect(url, autocommit=True) as conn:
        yield conn


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=TEXT.filter(bool),
    actor=TEXT,
    source=TEXT,
    description=TEXT,
    amount=AMOUNT,
    currency=st.sampled_from(["USD", "EUR"]),
)
def test_keys_and_fingerprints_are_the_same_in_python_and_in_sql(
    shared: Any, key: str, actor: str, source: str, description: str, amount: Decimal, currency: str
) -> None:
    """Of any text and any amount, however it is written."""
    said = [key, actor, source, description, amount, currency]
    row = shared.execute(
        "select meterbook.event_key(%s), meterbook.fingerprint(%s, 'tool', %s, %s, %s, %s)", said
    ).fetchone()
    print_of = of_fingerprint(actor, "tool", source, description, amount, currency)
    assert row == (UUID(of_event_key(key)), UUID(print_of))


async def test_a_writer_needs_no_right_to_a_table(book: Book, database_url: str) -> None:
    """The role may record through the function, and neither reads nor changes a table."""
    await subscribe(book, "user:user_42")
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("set role meterbook_writer")
        conn.execute("select meterbook.attribute(actors => array['user_42'])")
        row = conn.execute(EXAMPLE.encode()).fetchone()
        assert row is not None
        assert row[1] == "inserted"
        for statement in ("select * from meterbook.usage_log", "insert into meterbook.usage_delta default values"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(statement.encode())
