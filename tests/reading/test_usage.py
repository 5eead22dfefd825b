"""Usage of a period (§5): its breakdowns, its proof (§14), its reasons."""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from meterbook import Book, as_data, render
from meterbook.core.derivation import Derivation, DerivationData
from meterbook.errors import MeterbookError, UnknownEntity
from meterbook.operations.explain_usage import explain_usage
from tests.ledger import close, count, query, subscribe, sums, use, utc


async def some(book: Book) -> None:
    """8.00: A 5.00 on days 0 and 1, B 3.00 on day 1; workflow 6.00, copilot 2.00."""
    await subscribe(book, "user:payer")
    said: list[tuple[str, str, str, str, int]] = [
        ("A", "workflow", "gpt-4o", "1.00", 1),
        ("A", "workflow", "o4", "2.00", 2),
        ("A", "copilot", "gpt-4o", "2.00", 2),
        ("B", "workflow", "gpt-4o", "3.00", 2),
    ]
    for actor, source, description, amount, day in said:
        moment = utc(2026, 6, day, 9)
        await use(book, actor, amount, source=source, description=description, entity="user:payer", occurred_at=moment)


async def test_a_period_is_broken_down_by_actor_day_source_and_description(book: Book) -> None:
    """The largest first, days in order; the same before and after compaction, and in a mixture of both."""
    await some(book)
    for _ in range(2):
        usage = await book.usage("user:payer")
        assert (usage.count, list(usage.by_actor.items())) == (4, [("A", Decimal(5)), ("B", Decimal(3))])
        assert list(usage.by_day.items()) == [(0, Decimal(1)), (1, Decimal(7))]
        assert list(usage.by_source.items()) == [("workflow", Decimal(6)), ("copilot", Decimal(2))]
        assert dict(usage.by_description) == {
            ("workflow", "gpt-4o"): 4,
            ("workflow", "o4"): 2,
            ("copilot", "gpt-4o"): 2,
        }
        assert [usage.total, usage.refresh, usage.effective] == [8, Decimal("0.50"), Decimal("7.50")]
        await book.compact()
    await use(book, "B", "4.00", entity="user:payer")
    usage = await book.usage("user:payer")
    assert dict(usage.by_actor) == {"A": 5, "B": 7}


async def test_what_is_not_committed_is_not_there(book: Book, database_url: str) -> None:
    """Neither in the figures nor in the list; a compactor leaves it to its writer."""
    await use(book, "u", "1.00")
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        await use(book, "u", "2.00", conn=conn)
        await book.compact()
        assert (await book.usage("user:u")).total == 1
        assert len((await book.entries("user:u")).entries) == 1
        await conn.commit()
    assert (await book.usage("user:u")).total == 3
    await book.compact()
    assert (await book.usage("user:u")).total == 3


async def test_descriptions_beyond_the_first_are_together(book: Book, database_url: str) -> None:
    """The cap is 1 000 an entity and period, here 3: further ones are (other) of their source; every figure stays exact."""
    for n in range(5):
        await use(book, "u", f"{n + 1}.00", description=f"m{n}")
    query(database_url, "select * from meterbook.compact(descriptions_max => 3)")
    await use(book, "u", "10.00", description="m9")
    await use(book, "u", "20.00", description="m1")
    query(database_url, "select * from meterbook.compact(descriptions_max => 3)")
    usage = await book.usage("user:u")
    assert dict(usage.by_description) == {
        ("workflow", "m0"): 1,
        ("workflow", "m1"): 22,
        ("workflow", "m2"): 3,
        ("workflow", "(other)"): 19,
    }
    assert usage.total == 45
    assert await book.verify() == []
    await book.rebuild("user:u")
    assert await book.verify() == []
    assert len((await book.usage("user:u")).by_description) == 6


async def test_a_fold_reads_no_table_from_end_to_end(book: Book, database_url: str) -> None:
    """It costs what is folded, not what the ledger holds: rollups and periods are looked up one by one."""
    await some(book)
    with psycopg.connect(database_url) as conn:
        assert conn.execute("select count(*) from meterbook.compact()").fetchone() == (1,)
        scanned = conn.execute(
            "select relname, seq_scan, idx_scan > 0 from pg_stat_xact_user_tables where relname = any (%s)",
            [["usage_rollup", "billing_period"]],
        ).fetchall()
    assert sorted(scanned) == [("billing_period", 0, True), ("usage_rollup", 0, True)]


async def test_more_than_a_thousand_descriptions_stay_exact(book: Book, database_url: str) -> None:
    """1 100 in one call: 1 000 by name, 100 together; after a rebuild too."""
    line = {"actor": "u", "source": "s", "amount": "0.01"}
    await book.record_many([line | {"description": f"m{n}", "event_key": f"k{n}"} for n in range(1100)])
    for again in (book.compact, lambda: book.rebuild("user:u")):
        await again()
        usage = await book.usage("user:u")
        assert (len(usage.by_description), usage.by_description["s", "(other)"]) == (1001, Decimal(1))
        assert usage.total == 11
        assert await book.verify() == []
    assert count(database_url) == 1100


async def test_verify_names_what_differs(book: Book, database_url: str) -> None:
    """By entity, period and figure, with both amounts; of the entity that was asked for, or of all."""
    await use(book, "u", "1.00")
    await use(book, "other", "1.00")
    await book.compact()
    period = (await book.usage("user:u")).period.id
    query(
        database_url, "update meterbook.usage_rollup set amount = 1.5 where grain = 'actor' and period_id = %s", period
    )
    (found,) = await book.verify()
    assert (found.entity, found.period, found.grain) == ("user:u", period, "actor")
    assert [found.ledger_amount, found.derived_amount] == [1, Decimal("1.5")]
    assert await book.verify("user:other") == []
    assert await book.verify("user:u") == [found]
    with pytest.raises(UnknownEntity):
        await book.verify("user:nobody")


async def test_verify_sees_an_amount_that_moved_between_entries(book: Book, database_url: str) -> None:
    """Equal sums and counts do not hide it: the digest knows which key had which amount."""
    await use(book, "u", "1.00")
    await use(book, "u", "2.00")
    await book.compact()
    query(database_url, "alter table meterbook.usage_log disable trigger user")
    query(database_url, "alter table meterbook.event_key disable trigger user")
    for table in ("usage_log", "event_key"):
        ((partition,),) = query(database_url, f"select distinct tableoid::regclass::text from meterbook.{table}")
        query(database_url, f"alter table {partition} disable trigger user")
        query(database_url, f"update {partition} set amount = 3 - amount")
    found = await book.verify()
    assert {one.grain for one in found} == {"total", "day", "actor", "description", "key"}


async def test_rebuild_leaves_what_waits(book: Book) -> None:
    """Deltas that are not folded stay theirs; nobody is counted twice afterwards."""
    await use(book, "u", "1.00")
    await book.compact()
    await use(book, "u", "2.00")
    await book.rebuild("user:u")
    assert (await book.usage("user:u")).total == 3
    await book.compact()
    assert (await book.usage("user:u")).total == 3
    assert await book.verify() == []


async def test_explain_gives_the_terms_down_to_rows(book: Book) -> None:
    """The overage's formula, refresh by day, total by source and description with the largest entries; its sums are the report's."""
    await some(book)
    usage = await book.usage("user:payer")
    why = as_data(await book.explain("user:payer"))
    text = render(await book.explain("user:payer"))
    assert why["value"] == "0.00"
    names = [line.split("  ")[0] for line in text.replace("\n  ", "\n").split("\n")]
    assert names
    for figure in ("total", "effective", "refresh", "workflow", "copilot", "gpt-4o", "o4"):
        assert figure in text
    assert str(usage.total) in text


async def test_explain_says_how_many_rows_it_leaves_out(book: Book) -> None:
    """Three of five are shown, the largest; the other two are counted and summed, so that the rows add up to their figure."""
    for n in range(1, 6):
        await use(book, "u", f"{n}.00")
    await use(book, "u", "9.00", description="o4")
    why = as_data(await book.explain("user:u"))
    (source,) = [term for term in walk(why) if term["name"] == "workflow"]
    gpt, o4 = source["terms"]
    assert [term["value"] for term in gpt["terms"]] == ["5.00", "4.00", "3.00", "3.00"]
    assert (gpt["terms"][-1]["name"], gpt["terms"][-1]["note"]) == ("others", "2 entries more")
    assert sum(Decimal(term["value"]) for term in gpt["terms"]) == Decimal(gpt["value"])
    assert [term["value"] for term in o4["terms"]] == ["9.00"]


def walk(derivation: DerivationData) -> Iterator[DerivationData]:
    yield derivation
    for term in derivation["terms"]:
        yield from walk(term)


async def test_explain_shows_late_rows_apart(book: Book, database_url: str, clock: Any) -> None:
    """With the period that they belong to."""
    await subscribe(book, "user:u")
    june = (await use(book, "u", "5.00")).entries[0].period
    clock.now = utc(2026, 7, 2)
    await book.usage("user:u")
    close(database_url, june)
    (late,) = (await use(book, "u", "3.00", period=june)).entries
    text = render(await book.explain("user:u"))
    assert f"of closed period {june}" in text
    assert late.id in text


async def test_an_entity_that_is_none_is_refused(book: Book) -> None:
    """By every reader, with an error of ours, and nothing is made known by asking."""
    nobody: list[Any] = ["", "u", "user:", "team:u", "user:\0", "user:\ud800", None, 7]
    for entity in nobody:
        for read in (book.usage, book.entries, book.periods, book.explain, book.rebuild):
            with pytest.raises(MeterbookError):
                await read(entity)


async def test_every_entity_adds_up_to_the_ledger(book: Book, database_url: str) -> None:
    """Σ of the periods of each entity = Σ of its rows."""
    await some(book)
    await use(book, "payer", "2.50", occurred_at=utc(2026, 5, 1))
    periods = await book.periods("user:payer")
    totals = [(await book.usage("user:payer", period.id)).total for period in periods]
    assert sum(totals) == sums(database_url)["user:payer"]


async def test_explaining_a_payer_with_very_many_entries_reads_some_of_them(book: Book, clock: Any) -> None:
    """Its sums are exact and add up at every level; the rows are the largest among the newest that it looks at."""
    for n in range(40):
        clock.now += timedelta(seconds=1)
        await book.record("u", source="wand", description=f"d{n % 2}", amount=f"0.{n + 1:02}", event_key=f"k{n}")
    usage = await book.usage("user:u")
    async with book._pool.connection() as conn:
        explained = await explain_usage(conn, usage, rows=2, rows_read=6)
    total = next(each for each in _walk(explained) if each.name == "total")
    assert (total.value, total.formula) == (usage.total, "Σ of 40 entries")
    for each in _walk(total):
        if each.terms:
            assert each.value == sum(term.value for term in each.terms if isinstance(term.value, Decimal)), each.name
    shown = [each.value for each in _walk(total) if len(each.name) == 36]
    assert sorted(shown) == [Decimal("0.37"), Decimal("0.38"), Decimal("0.39"), Decimal("0.40")]


def _walk(derivation: Derivation) -> list[Derivation]:
    return [derivation, *(each for term in derivation.terms for each in _walk(term))]


DAYS = """
select p.id, (select coalesce(jsonb_object_agg(d.day, array[d.amount, d.entries]), '{}')
              from (select e ->> 0 as day, sum((e ->> 1)::numeric) as amount, sum((e ->> 2)::numeric) as entries
                    from json_array_elements(meterbook.recorded_days(p.entity_id, p.id, p.state = 'closed', m.at)) part
                    cross join json_array_elements(case json_typeof(part) when 'array' then part else '[]' end) e group by 1) d),
             (select coalesce(jsonb_object_agg(t.part, array[t.amount, t.entries]), '{}')
              from meterbook.usage_terms(p.entity_id, p.id, m.at) t where t.grain = 'day'),
             (select sum(t.amount) from meterbook.usage_terms(p.entity_id, p.id, m.at) t where t.grain = 'total')
from (select %s::timestamptz as at) m, meterbook.billing_period p
where p.entity_id = meterbook.entity_id_of('user:u') and p.kind = 'dated' order by p.starts_at
"""


async def test_what_decides_and_what_is_shown_are_sums_of_the_same_rows(
    book: Book, database_url: str, clock: Any
) -> None:
    """I6: days of a check = days of every grain, in each state of waiting: of an open period, behind a seal, given back, folded."""

    def totals() -> list[Decimal | None]:
        found = query(database_url, DAYS, clock.now)
        for _, decides, shown, total in found:
            assert decides == shown
            assert sum((Decimal(str(amount)) for amount, _ in decides.values()), Decimal(0)) == (total or 0)
        return [total for *_, total in found]

    await subscribe(book, "user:u")
    assert totals() == [None]
    first = (await use(book, "u", "20", occurred_at=utc(2026, 6, 3))).entries[0]
    assert totals() == [20]
    await book.compact()
    await use(book, "u", "2", occurred_at=utc(2026, 6, 3))
    await use(book, "u", "0.25", occurred_at=utc(2026, 6, 9))
    assert totals() == [Decimal("22.25")]
    async with await psycopg.AsyncConnection.connect(database_url) as slow:
        await use(book, "u", "4", conn=slow)
        clock.now = utc(2026, 7, 1, 2)
        await book.sweep()
        await slow.commit()
    await use(book, "u", "1")
    assert totals() == [Decimal("22.25"), 5]
    await book.correct(first.id, amount="-10", reason="x", event_key="back")
    assert totals() == [Decimal("22.25"), -5]
    await book.compact()
    assert totals() == [Decimal("22.25"), -5]
