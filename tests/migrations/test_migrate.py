"""Migrating: again, at once, beside writers, by an owner who is no superuser; and what is refused."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

import meterbook
from meterbook.book import Book
from meterbook.errors import EngineUnavailable, InvalidRequest, LedgerUnavailable, WrongLedger
from meterbook.postgres.embedded.binaries import find_binaries
from meterbook.postgres.migrate import known_migrations, migrate
from tests.conftest import Clock
from tests.databases import Databases
from tests.ledger import P1, utc
from tests.postgres.test_roles import login
from tests.races.playing import ORACLE, connected, first_contact, rows, said, until

NAMES = [migration.name for migration in known_migrations()]


async def migrated(url: str, **settled: str) -> list[str]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        return await migrate(conn, **settled)


async def applied(url: str) -> list[tuple[object, ...]]:
    async with connected(url) as conn:
        return await rows(conn, "select * from meterbook.migration order by number")


async def test_migrating_again_changes_nothing(empty_database_url: str) -> None:
    """The first gives the names of what it applied, the second none; what is written down about them stays."""
    assert await migrated(empty_database_url) == NAMES
    before = await applied(empty_database_url)
    assert await migrated(empty_database_url) == []
    assert await applied(empty_database_url) == before


async def test_migrators_at_once_apply_each_file_once(empty_database_url: str) -> None:
    """Four at the same moment: one applies everything, the others wait for it and find nothing to do."""
    results = await asyncio.gather(*(migrated(empty_database_url) for _ in range(4)))
    assert sorted(results) == [[], [], [], NAMES]
    assert len(await applied(empty_database_url)) == len(NAMES)


async def test_migrating_stops_no_writer(book: Book, database_url: str) -> None:
    """Two migrators run again and again beside callers who refuse to wait for any lock: every entry is recorded, every snapshot adds up."""
    await first_contact(book, "ada")
    async with connected(database_url) as conn:
        await conn.execute("alter function meterbook.record_usage set lock_timeout = '1ms'")
        await conn.commit()
    done = asyncio.Event()
    mismatches: list[object] = []

    async def look() -> None:
        async with connected(database_url) as conn:
            mismatches.extend(await rows(conn, ORACLE))

    async def write(number: int) -> int:
        replies = [await book.record_many([said(f"{number}.{n}")]) for n in range(40)]
        return sum(reply.inserted for reply in replies)

    beside = [
        asyncio.create_task(until(done, turn))
        for turn in (lambda: migrated(database_url), lambda: migrated(database_url), look)
    ]
    written = await asyncio.gather(*(write(number) for number in range(6)))
    done.set()
    assert min(await asyncio.gather(*beside)) > 0
    assert (sum(written), mismatches) == (240, [])
    assert (await book.usage("user:ada")).total == 240


async def test_migrating_while_a_callers_transaction_stays_open(book: Book, database_url: str) -> None:
    """A writer that never ends delays no migrator that has nothing to apply."""
    async with connected(database_url) as caller:
        await book.record_many([said("k")], conn=caller)
        assert await migrated(database_url) == []
        await caller.commit()
    assert (await book.usage("user:ada")).total == 1


async def test_a_migration_that_was_changed_after_it_was_applied_is_refused(database_url: str) -> None:
    """By its checksum, with its name; the migrators' lock is free again afterwards."""
    async with connected(database_url) as conn:
        await conn.execute("update meterbook.migration set checksum = 'another' where number = 3")
        await conn.commit()
    for _ in range(2):
        with pytest.raises(InvalidRequest, match=NAMES[2]):
            await migrated(database_url)


async def test_a_file_is_applied_whole_or_not_at_all(empty_database_url: str) -> None:
    """One that fails leaves nothing of itself behind; the cause removed, migrating goes on."""
    async with connected(empty_database_url) as conn:
        await conn.execute("create schema meterbook")
        await conn.execute("create table meterbook.late_entry ()")
        await conn.commit()
        with pytest.raises(InvalidRequest, match="late_entry"):
            await migrated(empty_database_url)
        assert await rows(
            conn,
            "select relname from pg_class where relnamespace = 'meterbook'::regnamespace and relkind = 'r' order by 1",
        ) == [
            ("late_entry",),
            ("migration",),
        ]
        await conn.execute("drop table meterbook.late_entry")
        await conn.commit()
    assert await migrated(empty_database_url) == NAMES


async def test_the_currency_of_a_ledger_is_for_good(database_url: str) -> None:
    """So is the kind of its free period: another catalog is refused, and changes nothing."""
    for settled in ({"currency": "EUR"}, {"free_period": "calendar"}):
        with pytest.raises(WrongLedger):
            await migrated(database_url, **settled)
    assert await migrated(database_url) == []


async def test_a_book_opens_on_a_migrated_ledger_only(empty_database_url: str) -> None:
    """What is missing is named, and what to do about it."""
    with pytest.raises(LedgerUnavailable, match="meterbook migrate"):
        async with meterbook.open(empty_database_url):
            pass
    await migrated(empty_database_url)
    async with connected(empty_database_url) as conn:
        await conn.execute("delete from meterbook.migration where number = %s", [int(NAMES[-1][:4])])
        await conn.commit()
    with pytest.raises(LedgerUnavailable, match=NAMES[-1]):
        async with meterbook.open(empty_database_url):
            pass


async def test_the_owner_need_not_be_a_superuser(empty_database_url: str, clock: Clock) -> None:
    """An ordinary login that may create a schema in the database migrates, records, folds and proves; the roles exist on the server."""
    with login(empty_database_url) as url:
        user = psycopg.conninfo.conninfo_to_dict(url)["user"]
        async with connected(empty_database_url) as conn:
            for role in ("meterbook_writer", "meterbook_reader", "meterbook_importer"):
                await conn.execute(
                    f"do $$ begin create role {role}; exception when duplicate_object then null; end $$".encode()
                )
            await conn.execute(f"grant create on database {conn.info.dbname} to {user}".encode())
            await conn.commit()
        assert await migrated(url) == NAMES
        async with meterbook.open(url, clock=clock) as book:
            await book.record_many([said("k", "5")])
            assert (await book.compact()).deltas == 1
            assert (await book.usage("user:ada")).total == 5
            assert await book.rebuild("user:ada") > 0
            assert await book.verify() == []
        async with connected(empty_database_url) as conn:
            await conn.execute(f"drop owned by {user}".encode())
            await conn.commit()


# ------------------------------------------------------------------------------------------------------ moving a ledger


@pytest.fixture
def programs(database_url: str) -> Path:
    """pg_dump and pg_restore of the server's own version."""
    with psycopg.connect(database_url) as conn:
        major = conn.info.server_version // 10_000
    try:
        folder = find_binaries(major).folder
    except EngineUnavailable:
        pytest.skip(f"no programs of PostgreSQL {major} on this machine")
    if shutil.which("pg_restore", path=folder) is None:
        pytest.skip(f"no pg_restore of PostgreSQL {major} on this machine")
    return folder


@pytest.fixture
def another_database_url(databases: Databases) -> Iterator[str]:
    with databases.fresh(migrated=False) as url:
        yield url


async def filled(book: Book, clock: Clock) -> None:
    """Entries, a conflict, a correction, a running total, late ones; some folded, some not."""
    await book.put_organization("acme", owner="olga")
    await book.put_subscription(
        id="s", owner="organization:acme", plan="team", status="active", starts_at=P1[0], ends_at=P1[1]
    )
    first = await book.record_many([said(f"key {n}", str(n + 1), "olga" if n % 2 else "ada") for n in range(200)])
    await book.record_cumulative("ada", request="r", total="8", source="copilot", description="gpt-4o")
    await book.compact()
    await book.correct(first.entries[0].id, amount="-0.5", reason="x", event_key="fix")
    clock.now = utc(2026, 7, 2)
    await book.record_many([said("next month", actor="olga")])


async def test_a_dumped_and_restored_ledger_goes_on(
    book: Book, database_url: str, another_database_url: str, programs: Path, clock: Clock, tmp_path: Path
) -> None:
    """Restored elsewhere it is proven clean, reads the same, replays old keys, records new ones, folds, corrects, and refuses changes."""
    await filled(book, clock)
    before = [await book.usage(entity) for entity in ("user:ada", "organization:acme")]
    file = tmp_path / "ledger.dump"
    dump = [str(programs / "pg_dump"), "--format=custom", f"--file={file}", f"--dbname={database_url}"]
    restore = [str(programs / "pg_restore"), "--exit-on-error", f"--dbname={another_database_url}", str(file)]
    for command in (dump, restore):
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    async with meterbook.open(another_database_url, clock=clock) as restored:
        assert await restored.verify() == []
        assert [await restored.usage(entity) for entity in ("user:ada", "organization:acme")] == before
        replies = await restored.record_many(
            [said("key 0", "1", "ada"), said("new", "5", "ada"), said("newcomer's", "5", "newcomer")]
        )
        assert (replies.inserted, replies.replayed) == (2, 1)
        await restored.record_cumulative("ada", request="r", total="9", source="copilot", description="gpt-4o")
        await restored.correct(replies.entries[0].id, amount="-0.5", reason="x", event_key="fix 2")
        assert (await restored.compact()).entities
        assert (await restored.usage("user:ada")).total == before[0].total + 5 + 1 - Decimal("0.5")
        assert await restored.verify() == []
    assert await migrated(another_database_url) == []
    async with connected(another_database_url) as conn:
        for change in (
            "delete from meterbook.usage_log",
            "truncate meterbook.event_key",
            "update meterbook.usage_log set amount = 1",
        ):
            with pytest.raises(psycopg.Error, match="append-only"):
                await conn.execute(change.encode())
            await conn.rollback()
