"""Least privilege: a writer calls functions and touches no table, a reader reads, an importer appends; everybody else has nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

import meterbook
from meterbook.book import Book
from meterbook.errors import AttributionUnavailable, MeterbookError
from meterbook.postgres.migrate import migrate
from tests.conftest import Clock
from tests.ledger import P1, query, subscribe, use, utc
from tests.races.playing import said

TABLES = """
select c.oid::regclass::text from pg_class c
where c.relnamespace = 'meterbook'::regnamespace and c.relkind in ('r', 'p', 'v', 'm') order by 1
"""
PRIVILEGES = """
select c.oid::regclass::text, lower(a.privilege_type) from pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
where c.relnamespace = 'meterbook'::regnamespace and c.relkind in ('r', 'p') and a.grantee = %s
"""


@contextmanager
def login(url: str, *roles: str) -> Iterator[str]:
    """The URL of a login that is a member of these roles and nothing else; gone afterwards."""
    name = f"test_{uuid4().hex[:12]}"
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(sql.SQL("create role {} login").format(sql.Identifier(name)))
        for role in roles:
            conn.execute(sql.SQL("grant {} to {}").format(sql.Identifier(role), sql.Identifier(name)))
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    try:
        yield urlunsplit(parts._replace(netloc=f"{name}@{host}"))
    finally:
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = %s", [name])
            conn.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def found(conn: psycopg.Connection[Any], statement: str, *arguments: object) -> list[tuple[Any, ...]]:
    return conn.execute(statement.encode(), arguments).fetchall()


def tables(conn: psycopg.Connection[Any]) -> list[str]:
    return [name for (name,) in found(conn, TABLES)]


def privileges(url: str, role: str) -> dict[str, set[str]]:
    """What a role may do with each table, by the catalog; `public` is what anybody may."""
    with psycopg.connect(url) as conn:
        oid = 0 if role == "public" else found(conn, "select %s::regrole::oid", role)[0][0]
        may: dict[str, set[str]] = {name: set() for name in tables(conn)}
        for table, privilege in found(conn, PRIVILEGES, oid):
            may[table].add(privilege)
    return may


def test_a_writer_has_no_right_to_any_table(database_url: str) -> None:
    """Neither by the catalog, nor when it tries: SELECT, INSERT, UPDATE, DELETE and TRUNCATE are refused on every table and partition."""
    assert set().union(*privileges(database_url, "meterbook_writer").values()) == set()
    with login(database_url, "meterbook_writer") as url, psycopg.connect(url) as conn:
        with psycopg.connect(database_url) as superuser:
            names = tables(superuser)
        tried = [
            "select * from {}",
            "insert into {} default values",
            "delete from {}",
            "truncate {}",
            "copy {} to stdout",
        ]
        for name in names:
            for statement in tried:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    conn.execute(statement.format(name).encode())
                conn.rollback()
    assert len(names) > 20


def test_a_writer_does_its_work_by_functions(database_url: str, clock: Clock) -> None:
    """Recording, correcting, running totals, customers and the fold, with nothing but membership in meterbook_writer."""
    with login(database_url, "meterbook_writer") as url, psycopg.connect(url, autocommit=True) as conn:
        at = clock.now
        conn.execute("select meterbook.put_organization('acme', 'olga', %s)", [at])
        conn.execute("select meterbook.add_member('acme', 'ada', 'member', %s)", [at])
        conn.execute(
            "select meterbook.put_subscription('s', 'organization:acme', 'team', 20, 1, 40, 0.4, 'active', %s, %s, 1, at => %s)",
            [*P1, at],
        )
        conn.execute("select meterbook.put_workspace('w', 'organization:acme', %s)", [at])
        conn.execute("select meterbook.attribute('{ada}', at => %s)", [at])
        recorded = found(
            conn,
            "select key::text, outcome, entity from meterbook.record_usage(array[meterbook.event_key('k')],"
            " array[meterbook.fingerprint('ada', 'model', 'workflow', 'gpt-4o', 2)], '{ada}', '{workflow}', '{gpt-4o}', '{2}', at => %s)",
            at,
        )
        assert [row[1:] for row in recorded] == [("inserted", "organization:acme")]
        corrected = found(
            conn,
            "select outcome from meterbook.correct_entry(%s, -1, 'x', meterbook.event_key('f'), %s)",
            recorded[0][0],
            at,
        )
        assert corrected == [("inserted",)]
        rise = found(
            conn, "select amount from meterbook.record_cumulative('r', 'ada', 3, 'copilot', 'gpt-4o', at => %s)", at
        )
        assert rise == [(Decimal(3),)]
        assert found(conn, "select deltas from meterbook.compact(at => %s)", at) == [(3,)]
        conn.execute("select meterbook.ensure_partitions()")
        conn.execute("select meterbook.transfer_ownership('acme', 'ada')")
        conn.execute("select meterbook.remove_member('acme', 'olga', %s)", [at])


def test_a_reader_reads_and_writes_nothing(database_url: str) -> None:
    """SELECT on every table and no other privilege; the functions that write are refused."""
    may = privileges(database_url, "meterbook_reader")
    attached = {name for name in may if name.startswith("meterbook.usage_log_y")}
    assert {name: rights for name, rights in may.items() if rights != {"select"} and name not in attached} == {}
    assert set().union(*(may[name] for name in attached)) <= {"select"}
    with login(database_url, "meterbook_reader") as url, psycopg.connect(url, autocommit=True) as conn:
        assert found(conn, "select * from meterbook.differences()") == []
        assert found(conn, "select * from meterbook.usage_terms(1, 1, now())") == []
        for call in ("compact()", "put_workspace('w')", "attribute('{ada}')", "ensure_partitions()", "rebuild(1)"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(f"select meterbook.{call}".encode())


def test_an_importer_appends_and_changes_nothing(database_url: str) -> None:
    """COPY into keys, entries, deltas and metadata; no UPDATE, DELETE or TRUNCATE anywhere."""
    may = privileges(database_url, "meterbook_importer")
    assert set().union(*may.values()) == {"select", "insert"}
    appended = {"meterbook.event_key", "meterbook.usage_log", "meterbook.usage_delta", "meterbook.entry_metadata"}
    assert {name for name, rights in may.items() if "insert" in rights} == appended
    with login(database_url, "meterbook_importer") as url, psycopg.connect(url) as conn:
        for table in sorted(appended):
            with conn.cursor() as cursor, cursor.copy(sql.SQL("copy {} from stdin").format(sql.SQL(table))):
                pass
            for statement in ("update {} set entity_id = 1", "delete from {}", "truncate {}"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    conn.execute(statement.format(table).encode())
                conn.rollback()


def test_public_has_nothing(database_url: str) -> None:
    """A login without a role of ours sees no schema, no table, and may call no function."""
    assert set().union(*privileges(database_url, "public").values()) == set()
    with psycopg.connect(database_url) as conn:
        callable_by_all = found(
            conn,
            "select p.oid::regprocedure::text from pg_proc p where p.pronamespace = 'meterbook'::regnamespace"
            " and exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where a.grantee = 0)",
        )
        assert callable_by_all == []
    with login(database_url) as url, psycopg.connect(url) as conn:
        for statement in (
            "select * from meterbook.ledger",
            "select meterbook.compact()",
            "select meterbook.event_key('k')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(statement.encode())
            conn.rollback()


def test_functions_with_the_owners_rights_have_a_search_path(database_url: str) -> None:
    """SECURITY DEFINER with a path that nobody else can put a table into: ours, then pg_temp, which is last."""
    with psycopg.connect(database_url) as conn:
        paths = found(
            conn,
            "select p.oid::regprocedure::text, (select s from unnest(p.proconfig) s where s like 'search_path=%%')"
            " from pg_proc p where p.pronamespace = 'meterbook'::regnamespace and p.prosecdef",
        )
    assert len(paths) > 10
    assert {path for _, path in paths} == {"search_path=meterbook, pg_temp"}


def test_a_table_of_the_callers_own_misleads_nobody(database_url: str, clock: Clock) -> None:
    """Temporary tables and functions of the caller's, named like ours or like PostgreSQL's, change no figure."""
    with login(database_url, "meterbook_writer") as url, psycopg.connect(url, autocommit=True) as conn:
        for table in ("usage_log", "event_key", "billing_entity", "actor", "period_clock"):
            conn.execute(sql.SQL("create temporary table {} (id bigint)").format(sql.Identifier(table)))
        conn.execute("set search_path = pg_temp, meterbook, pg_catalog")
        conn.execute("select meterbook.attribute('{ada}', at => %s)", [clock.now])
        outcome = found(
            conn,
            "select outcome from meterbook.record_usage(array[meterbook.event_key('k')],"
            " array[meterbook.fingerprint('ada', 'model', 's', 'd', 2)], '{ada}', '{s}', '{d}', '{2}', at => %s)",
            clock.now,
        )
    assert outcome == [("inserted",)]


async def use_everything(book: Book) -> None:
    first = await book.record_many([said("k", "5"), said("l", "5", "bob")])
    await book.correct(first.entries[0].id, amount="-1", reason="x", event_key="f")
    await book.record_cumulative("ada", request="r", total="3", source="copilot", description="gpt-4o")
    await book.put_organization("acme", owner="olga")
    await book.put_subscription(id="s", owner="user:ada", plan="pro", status="active", starts_at=P1[0], ends_at=P1[1])
    await book.put_workspace("w1", payer="organization:acme")
    await book.record_many([said("m", workspace="w1")])
    await book.compact()
    assert (await book.usage("user:bob")).total == 5
    assert (await book.entries("user:bob")).entries
    assert (await book.usage("organization:acme")).total == 1
    assert "5.00" in meterbook.render(await book.explain("user:bob"))
    assert await book.periods("user:ada")
    assert await book.verify() == []
    assert (await book.resolve("ada", "w1")).entity == "organization:acme"
    assert await book.doctor()


async def test_a_book_needs_a_writer_and_a_reader_and_no_more(database_url: str, clock: Clock) -> None:
    """meterbook.open with such a login: every call of everyday works, in an own transaction too; rebuilding is the owner's."""
    with login(database_url, "meterbook_writer", "meterbook_reader") as url:
        async with meterbook.open(url, clock=clock) as book:
            await use_everything(book)
            async with await psycopg.AsyncConnection.connect(url) as conn:
                with pytest.raises(meterbook.KeyConflict):
                    await book.record_many([said("k", "6")], conn=conn)
                await book.record_many([said("n")], conn=conn)
            with pytest.raises(MeterbookError):
                await book.rebuild("user:ada")


async def test_partitions_of_later_months_are_the_readers_too(database_url: str, clock: Clock) -> None:
    """A partition that a writer made later is read through the ledger by a reader."""
    clock.now = clock.now.replace(year=2033)
    async with meterbook.open(database_url, clock=clock) as owner:
        await owner.record_many([said("k", "5")])
    with login(database_url, "meterbook_writer", "meterbook_reader") as url:
        async with meterbook.open(url) as book:
            assert (await book.entries("user:ada")).entries
            assert await book.verify() == []


async def test_a_reader_reads_all_that_is_open_and_is_told_when_it_is_not(database_url: str, clock: Clock) -> None:
    """§10: a read opens the next period. Who may only read gets what is there, then an error that says what to do, never an old figure."""
    async with meterbook.open(database_url, clock=clock) as owner:
        await subscribe(owner, "user:u")
        await use(owner, "u", "5")
        with login(database_url, "meterbook_reader") as url:
            async with meterbook.open(url, clock=clock) as book:
                assert (await book.usage("user:u")).total == Decimal(5)
                assert [one.kind for one in await book.periods("user:u")] == ["dated", "free"]
                clock.now = utc(2026, 7, 1)
                for read in (book.usage, book.periods):
                    with pytest.raises(AttributionUnavailable, match="may only read"):
                        await read("user:u")
                with pytest.raises(AttributionUnavailable, match="may only read"):
                    await book.usage("user:nobody")
                await owner.sweep()
                assert (await book.usage("user:u")).total == Decimal(0)
                assert [one.kind for one in await book.periods("user:u")] == ["dated", "dated", "free"]


AHEAD = [
    "select meterbook.attribute(array['u'], at => %s)",
    "select meterbook.record_usage(array[gen_random_uuid()], array[gen_random_uuid()], '{u}', '{s}', '{d}', '{1}', at => %s)",
    "select meterbook.record_cumulative('r', 'u', 1, 's', 'd', at => %s)",
    "select meterbook.correct_entry(gen_random_uuid(), 1, 'why', gen_random_uuid(), at => %s)",
    "select meterbook.resolve('u', at => %s)",
    "select meterbook.parties_of(array['u'], array[null], array[null], array[null::bigint], at => %s)",
    "select meterbook.put_subscription('s', 'user:u', 'pro', 10, 1, 20, 0.2, 'active', now(), now() + '1 month'::interval, 1, at => %s)",
    "select meterbook.put_organization('o', 'u', at => %s)",
    "select meterbook.put_workspace('w', 'user:u', at => %s)",
    "select meterbook.delete_user('u', at => %s)",
    "select meterbook.compact(at => %s)",
    "select meterbook.ensure_partitions(at => %s)",
    "select meterbook.admission_terms('u', null, at => %s)",
    "select meterbook.pass_clocks(array(select 1::bigint), '{}', at => %s)",
]


async def test_a_writer_is_not_believed_about_the_future(empty_database_url: str) -> None:
    """§10: the clock opens periods. Where it is the database's, a time ahead of it is refused by every call, and opens nothing."""
    async with await psycopg.AsyncConnection.connect(empty_database_url, autocommit=True) as conn:
        await migrate(conn)
    with login(empty_database_url, "meterbook_writer") as url, psycopg.connect(url, autocommit=True) as conn:
        conn.execute("select meterbook.attribute(array['u'])")
        periods = query(empty_database_url, "select count(*) from meterbook.billing_period")
        for call in AHEAD:
            with pytest.raises(psycopg.DatabaseError, match="ahead of the clock"):
                conn.execute(call.encode(), [datetime.now(UTC) + timedelta(days=400)])
        assert query(empty_database_url, "select count(*) from meterbook.billing_period") == periods
        back = datetime.now(UTC) - timedelta(minutes=1)
        assert found(conn, "select outcome from meterbook.resolve('u', at => %s)", back) == [("resolved",)]


async def test_the_owner_brings_the_time_and_the_writer_is_told_to_leave_it_out(
    database_url: str, clock: Clock
) -> None:
    """A Book with a clock that is ahead: the owner's, of tests and replays, is believed; a writer's calls are refused."""
    clock.now = datetime.now(UTC) + timedelta(days=400)
    async with meterbook.open(database_url, clock=clock) as book:
        await use(book, "u", "1")
    with login(database_url, "meterbook_writer") as url, pytest.raises(MeterbookError, match="ahead of the clock"):
        async with meterbook.open(url, clock=clock):
            pass
