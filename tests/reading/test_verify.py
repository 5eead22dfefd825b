"""Proof (§14): what is changed behind the ledger's back, verify names by entity, period and amount; a healthy one is clean."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from meterbook import Book
from meterbook.core.upkeep import Difference
from tests.bills import lump, pays
from tests.conftest import Clock
from tests.ledger import P1, count, query, subscribe, use, utc

UNGUARDED = """
do $$
declare guarded regclass;
begin
  set session_replication_role = replica;
  for guarded in select distinct t.tgrelid::regclass from pg_trigger t join pg_class c on c.oid = t.tgrelid
    where c.relnamespace = 'meterbook'::regnamespace and not t.tgisinternal and t.tgparentid = 0
  loop
    execute format('alter table %s disable trigger user', guarded);
  end loop;
end $$
"""


def tamper(database_url: str, statement: str) -> None:
    """As a superuser who has switched off what guards the tables."""
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute(UNGUARDED)
        for (partition,) in conn.execute(
            "select inhrelid::regclass::text from pg_inherits where inhparent = 'meterbook.usage_log'::regclass"
        ).fetchall():
            conn.execute(f"alter table {partition} disable trigger user".encode())
        assert conn.execute(statement.encode()).rowcount > 0


async def first(book: Book) -> Difference:
    """Of the whole ledger, and the same when asked for its entity alone."""
    differences = await book.verify()
    assert differences
    assert differences[0] in await book.verify("user:u")
    assert await book.verify("user:other") == []
    return differences[0]


async def lived_in(book: Book) -> str:
    """A month of a pro_6000 who used 140.25, had 2.00 of it corrected, and was billed; one more user. Gives the corrected entry."""
    await pays(book, "user:u")
    await book.grant_credit("user:u", amount="10", grant_id="g")
    wrong = await lump(book, "u", "140.25", day=3)
    await book.correct(wrong, amount="-2", reason="counted twice", event_key="fix")
    await book.record_cumulative("u", request="r", total="1.50", source="copilot", description="o4")
    await use(book, "other", "1")
    await book.compact()
    await book.bill_threshold("user:u")
    return wrong


CLAIMS = [
    ("update meterbook.entry_correction set original = 999", "corrected = Σ corrections"),
    ("update meterbook.entry_correction set corrected = -1", "corrected = Σ corrections"),
    ("delete from meterbook.entry_correction", "corrected = Σ corrections"),
    ("update meterbook.correction set amount = -1", "a correction is kept with the period and day of its entry"),
    ("update meterbook.correction set of_day = 7", "a correction is kept with the period and day of its entry"),
    ("update meterbook.correction set of_period = -1", "a correction is kept with the period and day of its entry"),
    ("update meterbook.correction set booked = -1", "a correction is kept with the period and day of its entry"),
    ("update meterbook.correction set corrects = key", "a correction is kept with the period and day of its entry"),
    ("delete from meterbook.correction", "a correction is kept with the period and day of its entry"),
    ("update meterbook.cumulative_request set total = 2", "running total = Σ its rises"),
    (
        "update meterbook.usage_rollup set descriptions = 7 where grain = 'total' and amount > 100",
        "a rollup knows how many descriptions it has",
    ),
    ("update meterbook.credit_spend set cents = 999", "the credits of a charge = what grants paid"),
    ("update meterbook.credit_grant set cents = 999", "no grant pays more than it has"),
    ("update meterbook.charge set charged_cents = charged_cents + 1", "every charge is said in the outbox"),
    ("delete from meterbook.outbox where kind = 'charge'", "every charge is said in the outbox"),
]


@pytest.mark.parametrize(("statement", "claim"), CLAIMS)
async def test_verify_names_each_derived_row_that_was_changed(
    book: Book, database_url: str, statement: str, claim: str
) -> None:
    """Corrections, running totals, counts of descriptions, credits and charges: by what they claim, and whose they are."""
    await lived_in(book)
    assert await book.verify() == []
    tamper(database_url, statement)
    found = await first(book)
    assert (found.claim, found.entity) == (claim, "user:u")


ENTRIES = [
    ("usage_log", "set amount = 140.24", "amount, fingerprint"),
    ("usage_log", "set period_id = 0", "period"),
    ("usage_log", "set belongs_to = 1", "period"),
    ("usage_log", "set recorded_at = recorded_at + '1 second'::interval", "recorded_at"),
    ("usage_log", "set actor_id = (select id from meterbook.actor where external_id = 'other')", "fingerprint"),
    ("usage_log", "set actor_id = 0", "actor"),
    ("usage_log", "set category = 'tool'", "fingerprint"),
    ("usage_log", "set source = 'copilot'", "fingerprint"),
    ("usage_log", "set description = 'gpt-4'", "fingerprint"),
    ("event_key", "set amount = 140.24", "amount"),
    ("event_key", "set period_id = 0", "period"),
    ("event_key", "set fingerprint = key", "fingerprint"),
    ("event_key", "set recorded_at = recorded_at + '1 second'::interval", "recorded_at"),
]


@pytest.mark.parametrize(("table", "change", "named"), ENTRIES)
async def test_verify_names_each_column_of_an_entry_that_was_changed(
    book: Book, database_url: str, table: str, change: str, named: str
) -> None:
    """Entries against their keys: amount, period, time, and by the fingerprint who acted and what was said."""
    entry = await lived_in(book)
    tamper(database_url, f"update meterbook.{table} {change} where key = '{entry}'")
    (found,) = [
        one for one in await book.verify("user:u") if one.claim == "every entry has its key, every key its entry"
    ]
    assert (found.entity, found.part, found.detail) == ("user:u", str(entry), named)
    assert Decimal("140.24") in (found.ledger_amount, found.derived_amount) or found.ledger_amount == Decimal("140.25")


async def test_verify_names_an_entry_that_was_given_to_somebody_else(book: Book, database_url: str) -> None:
    """Whole ledger: the entry and its key name two entities. Of one entity: a key without an entry, and an entry without a key."""
    entry = await lived_in(book)
    other = f"update meterbook.usage_log set entity_id = meterbook.entity_id_of('user:other') where key = '{entry}'"
    tamper(database_url, other)
    claim = "every entry has its key, every key its entry"
    assert [(one.part, one.detail) for one in await book.verify() if one.claim == claim] == [(entry, "entity")]
    (key,) = [one for one in await book.verify("user:u") if one.claim == claim and one.part == entry]
    assert (key.ledger_amount, key.derived_amount) == (None, Decimal("140.25"))
    (row,) = [one for one in await book.verify("user:other") if one.claim == claim and one.part == entry]
    assert (row.ledger_amount, row.derived_amount) == (Decimal("140.25"), None)


@pytest.mark.parametrize(
    "change",
    ["day = day + 1", "day = -1", "day = null", "occurred_at = occurred_at - '1 day'::interval"],
)
async def test_verify_compares_the_day_of_an_entry_with_its_time(book: Book, database_url: str, change: str) -> None:
    """§6: the bucket of its time in its period; the refresh and the bill follow from it."""
    entry = await lived_in(book)
    tamper(database_url, f"update meterbook.usage_log set {change} where key = '{entry}'")
    (found,) = [
        one for one in await book.verify() if one.claim == "the day of an entry is that of its time in its period"
    ]
    assert (found.entity, found.part, found.ledger_amount) == ("user:u", entry, Decimal("140.25"))


async def test_who_was_erased_is_taken_at_their_word_and_counted(book: Book, database_url: str) -> None:
    """The fingerprint digests a name that nobody knows any more: no difference, and verify says how many it could not prove."""
    await lived_in(book)
    assert await book.unprovable() == 0
    await book.delete_user("other")
    assert await book.verify() == []
    assert (await book.unprovable(), await book.unprovable("user:u")) == (1, 0)
    assert count(database_url) == 4


SEALED = [
    ("sealed_period", "amount = amount + 1", "a sealed period = its entries"),
    ("sealed_period", "digest = digest + 1", "a sealed period = its entries"),
    ("sealed_actor", "amount = amount + 1", "a sealed actor = their entries"),
    ("sealed_period", "overage = overage + 1", "billed = overage, or what was billed before the close"),
    ("sealed_period", "credits_cents = 0", "billed = overage, or what was billed before the close"),
]


@pytest.mark.parametrize(("table", "change", "claim"), SEALED)
async def test_verify_recomputes_what_was_sealed(
    book: Book, database_url: str, clock: Clock, table: str, change: str, claim: str
) -> None:
    """§14, I7: totals, row counts, digests per entity and actor, and that what was billed is what was owed."""
    await lived_in(book)
    clock.now = P1[1] + timedelta(hours=2)
    await book.sweep()
    assert count(database_url, "sealed_period") == 1
    assert await book.verify() == []
    tamper(database_url, f"update meterbook.{table} set {change}")
    found = await first(book)
    assert (found.claim, found.entity) == (claim, "user:u")


async def test_what_becomes_visible_after_the_seal_is_no_difference(
    book: Book, database_url: str, clock: Clock
) -> None:
    """It waits as a delta of a closed period, is folded into the open one, is corrected before and after: clean at each step."""
    await subscribe(book, "user:u")
    await use(book, "u", "5")
    async with await psycopg.AsyncConnection.connect(database_url) as slow:
        straggler = (await use(book, "u", "4", conn=slow)).entries[0]
        clock.now = P1[1] + timedelta(hours=2)
        await book.sweep()
        await slow.commit()
    for step in ("waiting", "folded"):
        assert await book.verify() == [], step
        await book.correct(straggler.id, amount="-1", reason="x", event_key=step)
        assert await book.verify() == [], step
        await book.compact()
    assert await book.verify() == []


async def test_bounds_that_move_are_no_difference(book: Book, clock: Clock) -> None:
    """A cut, an end that moves on, a later start: rows recorded before keep the day that they had."""
    await subscribe(book, "user:u")
    entry = (await use(book, "u", "5", occurred_at=utc(2026, 6, 18))).entries[0]
    await subscribe(book, "user:u", window=(P1[0], utc(2026, 6, 25)))
    clock.now = utc(2026, 6, 26)
    await use(book, "u", "1", period=entry.period)
    await use(book, "u", "1")
    await subscribe(book, "user:u", window=(P1[0], utc(2026, 6, 28)))
    clock.now = utc(2026, 6, 29)
    await use(book, "u", "1")
    await subscribe(book, "user:u", window=(utc(2026, 6, 27), utc(2026, 7, 27)))
    await use(book, "u", "1")
    assert await book.verify() == []


async def test_a_description_called_other_is_counted_as_one(book: Book, database_url: str) -> None:
    """(other) is also where descriptions beyond the cap go: neither of them makes a difference, before and after a rebuild."""
    for description in ("(other)", "a", "b", "c"):
        await use(book, "u", "1", description=description)
    query(database_url, "select meterbook.compact(descriptions_max => 2)")
    assert await book.verify() == []
    await book.rebuild("user:u")
    assert await book.verify() == []


async def test_a_named_difference_says_where_and_how_much(book: Book, database_url: str) -> None:
    """In words: the entity, the period, both amounts and the claim."""
    entry = await lived_in(book)
    tamper(database_url, f"update meterbook.event_key set amount = 1 where key = '{entry}'")
    said: Any = str(await first(book))
    period = (await book.usage("user:u")).period.id
    assert said.startswith(
        f"user:u period {period} key {entry} amount: the entries say 140.25 (1 entries), found 1 (1)"
    )
