"""After a restore: the ledger proves itself, still refuses what it refused, knows every key, and goes on."""

import json
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

import meterbook
import meterbook.sync
from meterbook.book import Book
from meterbook.errors import KeyConflict
from meterbook.postgres.embedded import erase
from meterbook.postgres.embedded.place import find_place
from tests.backups import dump, restored
from tests.bills import pays
from tests.conftest import Clock
from tests.ledger import use
from tests.postgres.test_roles import login

ON_ONE_SERVER = pytest.mark.parametrize("server", ["embedded18"], indirect=True)
VOICE: dict[str, Any] = {"source": "voice", "description": "realtime"}
LATER: dict[str, Any] = {"source": "workflow", "description": "gpt-4o", "amount": "0.25"}


async def lived_in(book: Book, clock: Clock) -> str:
    """A ledger with something in every corner: closed and late, corrected, held, streamed, folded in part. Gives a key of its door."""
    await book.put_organization("acme", owner="ada")
    await book.add_member("acme", "bob")
    await pays(book, "organization:acme", "team_6000", seats=1)
    await book.put_workspace("w", payer="organization:acme")
    await book.set_limit("organization:acme", "500")
    entry = (await use(book, "ada", "180.5", key="big", metadata={"tokens": 7})).entries[0]
    await use(book, "cyd", "1.25", key="free")
    await book.record_cumulative("bob", request="r", total="0.75", **VOICE)
    await book.correct(entry.id, amount="-0.5", reason="a test", event_key="fix")
    with pytest.raises(KeyConflict):
        await use(book, "cyd", "9", key="free")
    await book.grant_credit("organization:acme", amount="12.50", grant_id="welcome")
    await book.bill_threshold("organization:acme")
    await book.compact()
    clock.now += timedelta(days=15)
    await book.sweep()
    await use(book, "bob", "0.5", key="late", occurred_at=clock.now - timedelta(days=12))
    await book.place_hold("cyd", amount="0.25", hold_id="h")
    await book.block("user:dee", reason="administrative")
    async with book.act("the tests", "make_key", "app", {}):
        return (await book.make_key("app", scopes=["admin"], by="the tests")).text


async def figures(book: Book) -> dict[str, Any]:
    entities = ("organization:acme", "user:cyd", "user:bob")
    return {
        "usage": [(await book.usage(each)).total for each in entities],
        "entries": [[entry.id for entry in (await book.entries(each)).entries] for each in entities],
        "charges": await book.charges("organization:acme"),
        "credits": (await book.credits("organization:acme")).balance_cents,
        "holds": await book.holds("user:cyd"),
        "acts": await book.acts(),
        "outbox": await book.outbox(),
    }


@ON_ONE_SERVER
async def test_a_dump_that_is_restored_proves_itself_and_goes_on(
    book: Book, clock: Clock, database_url: str, tmp_path: Path
) -> None:
    """pg_dump and pg_restore without an error: figures, proof, guards and sequences are there; known keys are known, new ones recorded."""
    key = await lived_in(book, clock)
    before = await figures(book)
    with restored(dump(database_url, tmp_path / "backup"), database_url) as url:
        async with meterbook.open(url, clock=clock) as after:
            assert await after.verify() == []
            assert await figures(after) == before
            assert (await after.know_key(key)).name == "app"
            assert (await use(after, "cyd", "1.25", key="free")).replayed == 1
            assert (await after.record_cumulative("bob", request="r", total="0.75", **VOICE)).inserted == 0
            assert (await use(after, "eve", "2", key="new")).inserted == 1
            await after.settle("h", amount="0.25", source="workflow", description="d", event_key="settled")
            await after.make_key("another", scopes=["read"], by="the tests")
            clock.now += timedelta(days=40)
            await after.sweep()
            await after.compact()
            assert await after.verify() == []
        with psycopg.connect(url) as conn, pytest.raises(psycopg.Error, match="append-only"):
            conn.execute("update meterbook.usage_log set amount = 1")
        with psycopg.connect(url) as conn:
            conn.execute("set session_replication_role = replica")
            with pytest.raises(psycopg.Error, match="append-only"):
                conn.execute("delete from meterbook.event_key")


@ON_ONE_SERVER
async def test_logins_of_the_least_privilege_find_their_rights_after_a_restore(
    book: Book, clock: Clock, database_url: str, tmp_path: Path
) -> None:
    """Where the four roles are; of the ledger alone, by another owner (--no-owner): writers record, readers read, no more."""
    await lived_in(book, clock)
    backup = dump(database_url, tmp_path / "backup", "--schema=meterbook")
    with restored(backup, database_url, "--no-owner") as url, login(url, "meterbook_writer") as writer:
        async with meterbook.open(writer) as recording:
            assert (await recording.record("cyd", event_key="new", **LATER)).inserted == 1
        with psycopg.connect(writer) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("select from meterbook.usage_log")
        with login(url, "meterbook_reader") as reader, psycopg.connect(reader) as conn:
            assert conn.execute(sql.SQL("select count(*) > 0 from meterbook.usage_log")).fetchone() == (True,)


def test_a_copy_of_the_embedded_folder_is_a_backup_once_its_server_has_stopped(tmp_path: Path) -> None:
    """The folder and the place that it points at, copied as they are and opened under another name."""
    one, two = tmp_path / "one", tmp_path / "two"
    with meterbook.sync.open(home=one) as book:
        book.record("u", event_key="k", **LATER)
    shutil.copytree(one, two, symlinks=True)
    place, pointer = find_place(one), json.loads((one / "place.json").read_text())
    assert place is not None
    data = two / "server" if place.home.is_relative_to(one) else place.home.with_name(f"{place.home.name}-two")
    shutil.rmtree(data, ignore_errors=True)
    subprocess.run(["cp", "-a", place.home, data], check=True)
    if data.parent != two:
        (two / "place.json").write_text(json.dumps(pointer | {"home": str(data), "socket": str(data / "run")}))
    try:
        with meterbook.sync.open(home=two) as book:
            assert (book.record("u", event_key="k", **LATER)).replayed == 1
            assert book.verify() == []
    finally:
        assert erase(one)
        assert erase(two)
