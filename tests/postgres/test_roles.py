"""Least privilege: a writer calls functions and touches no table, a reader reads, an importer appends; everybody else has nothing."""

import asyncio
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
from meterbook.errors import AheadOfClock, AttributionUnavailable, MeterbookError
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
CALLED_WITHOUT_PRIVILEGE = r"""
select r.rolname, p.proname, q.proname from pg_proc p
cross join lateral regexp_matches(p.prosrc, 'meterbook\.([a-z_]+)\s*\(', 'g') m(name)
join pg_proc q on q.pronamespace = p.pronamespace and q.proname = m.name[1]
join pg_roles r on r.rolname in ('meterbook_writer', 'meterbook_reader', 'meterbook_importer')
where p.pronamespace = 'meterbook'::regnamespace and not p.prosecdef and has_function_privilege(r.oid, p.oid, 'execute')
  and not has_function_privilege(r.oid, q.oid, 'execute') order by 1, 2, 3
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
        conn.execute("discard temp")  # a session that has ended drops them a moment later, and then the role can't be
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


def test_who_may_call_a_function_may_call_what_it_calls(database_url: str) -> None:
    """With the caller's privileges: a planner that inlines hides what is missing, and the server of another version refuses every read."""
    assert query(database_url, CALLED_WITHOUT_PRIVILEGE) == []


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


CALLABLE = """
select p.proname, array_agg(a.name order by a.n), array_agg(format_type(a.type, null) order by a.n)
from pg_proc p
cross join unnest(p.proargnames, coalesce(p.proallargtypes, p.proargtypes::oid[]), p.proargmodes) with ordinality a(name, type, mode, n)
where p.pronamespace = 'meterbook'::regnamespace and has_function_privilege('meterbook_writer', p.oid, 'execute')
  and coalesce(a.mode, 'i') <> 't'
group by p.oid order by 1
"""
SAMPLES = {
    "text": "'u'",
    "bigint": "1",
    "integer": "1",
    "smallint": "80",
    "numeric": "1",
    "boolean": "true",
    "uuid": "gen_random_uuid()",
    "jsonb": "'{}'",
    "interval": "'1 minute'",
    "timestamp with time zone": "now()",
}
TIMES_OF_SOMETHING_ELSE = {
    "anchor", "cancel_at", "created_at", "effective_at", "ended_at", "ends", "ends_at", "event_at", "expires_at", "occurred", "occurred_at",
    "occurred_ats", "seen_at", "settled_at", "starts", "starts_at",
}  # fmt: skip
"""Times that a writer may say: when it happened, what a subscription says, Stripe's own word. None of them is the moment of the call."""


def writers_functions(conn: psycopg.Connection[Any]) -> dict[str, dict[str, str]]:
    """What a writer may call: the type of each argument."""
    return {name: dict(zip(names, types, strict=True)) for name, names, types in found(conn, CALLABLE)}


def sample(kind: str) -> str:
    element = kind.removesuffix("[]")
    value = f"{SAMPLES[element]}::{element}"
    return value if element == kind else f"array[{value}]"


def test_every_function_of_a_writer_refuses_a_time_that_is_ahead(database_url: str) -> None:
    """ADR 0020: found in the catalog, so that none forgets it; whatever else it is given, and before anything else is looked at."""
    believed = []
    with login(database_url, "meterbook_writer") as url, psycopg.connect(url, autocommit=True) as conn:
        functions = writers_functions(conn)
        timed = {name: arguments for name, arguments in functions.items() if "at" in arguments}
        for name, arguments in timed.items():
            said = {one: sample(kind) for one, kind in arguments.items()} | {
                "at": "clock_timestamp() + interval '2 minutes'"
            }
            listed = ", ".join(f"{one} => {value}" for one, value in said.items())
            try:
                conn.execute(f"select meterbook.{name}({listed})".encode())
            except psycopg.Error as error:
                if error.sqlstate == "MB060":
                    continue
            believed.append(name)
    assert believed == []
    assert len(timed) > 35


def test_a_writer_says_the_moment_of_a_call_by_no_other_name(database_url: str) -> None:
    """An argument that is a time is `at`, which is checked, or one of those that are something else."""
    with psycopg.connect(database_url) as conn:
        functions = writers_functions(conn)
    times = {one for arguments in functions.values() for one, kind in arguments.items() if kind.startswith("timestamp")}
    assert times - {"at"} <= TIMES_OF_SOMETHING_ELSE


async def test_a_writer_is_not_believed_about_the_future(empty_database_url: str) -> None:
    """§10: the clock opens periods. Where it is the database's, a time ahead of it is refused by every call, and opens nothing."""
    async with await psycopg.AsyncConnection.connect(empty_database_url, autocommit=True) as conn:
        await migrate(conn)
    with login(empty_database_url, "meterbook_writer") as url, psycopg.connect(url, autocommit=True) as conn:
        conn.execute("select meterbook.attribute(array['u'])")
        periods = query(empty_database_url, "select count(*) from meterbook.billing_period")
        for call in ("attribute(array['u'], at => %s)", "pass_clocks(array(select 1::bigint), '{}', at => %s)"):
            with pytest.raises(psycopg.DatabaseError, match="ahead of the clock"):
                conn.execute(f"select meterbook.{call}".encode(), [datetime.now(UTC) + timedelta(days=400)])
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
    with login(database_url, "meterbook_writer") as url, pytest.raises(AheadOfClock, match="ahead of the clock"):
        async with meterbook.open(url, clock=clock):
            pass


async def test_who_is_ahead_of_the_clock_is_told_so_by_every_call(database_url: str, clock: Clock) -> None:
    """A Book whose clock runs ahead: one clear error that no retry mends, whichever step notices it. A check never raises: it denies."""
    clock.now = datetime.now(UTC)
    with login(database_url, "meterbook_writer", "meterbook_reader") as url:
        async with meterbook.open(url, clock=clock) as book:
            await use(book, "u", "1")
            hold = await book.place_hold("u", amount="0.10")
            clock.now += timedelta(days=400)
            denied = await book.check("u")
            answers: dict[str, object] = {}
            for name, call in {
                "record": use(book, "u", "1"),
                "record, first contact": use(book, "nobody", "1"),
                "usage, first contact": book.usage("user:nobody"),
                "resolve": book.resolve("u"),
                "place_hold": book.place_hold("u", amount="1"),
                "settle": book.settle(hold.id, amount="1", source="s", description="d"),
                "release": book.release(hold.id),
                "block": book.block("user:u", reason="dispute"),
                "grant_credit": book.grant_credit("user:u", amount="1", grant_id="g"),
                "bill_threshold": book.bill_threshold("user:u"),
                "put_workspace": book.put_workspace("w"),
                "compact": book.compact(),
                "delete_user": book.delete_user("u"),
            }.items():
                (answers[name],) = await asyncio.gather(call, return_exceptions=True)
    assert {name: answer for name, answer in answers.items() if not isinstance(answer, AheadOfClock)} == {}
    assert not denied.allowed
    assert "ahead of the clock" in denied.message
    assert (AheadOfClock.code, AheadOfClock.retryable) == ("ahead_of_clock", False)
