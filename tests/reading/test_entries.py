"""The list of entries (§5): filters, keyset pages, a summary of the whole filter."""

from datetime import timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest

from meterbook import Book, InvalidUsage
from meterbook.errors import InvalidCursor, MeterbookError, UnknownEntity
from meterbook.postgres.reading import SQL
from tests.ledger import P1, utc


async def fill(book: Book, clock: Any) -> list[str]:
    """Twelve entries, two an instant; ids in the order of the list: newest first."""
    ids = []
    for n in range(6):
        clock.now = utc(2026, 6, 10 + n, 12)
        line = {"actor": f"a{n % 2}", "entity": "user:u", "description": "m", "metadata": {"n": n}}
        reply = await book.record_many(
            [
                line | {"source": "workflow", "amount": "1.00", "event_key": f"w{n}", "workspace": "w"},
                line | {"source": "copilot", "amount": "0.50", "event_key": f"c{n}", "category": "tool"},
            ]
        )
        ids += sorted(entry.id for entry in reply.entries)
    return ids[::-1]


async def test_pages_are_newest_first_and_miss_nothing(book: Book, clock: Any) -> None:
    """By (recorded at, id), whatever the page's size, also across equal instants; the summary is the whole filter's on each."""
    await book.put_workspace("w", payer="user:u")
    ids = await fill(book, clock)
    for limit in (1, 5, 12, 50):
        seen, cursor = [], None
        while True:
            page = await book.entries("user:u", limit=limit, cursor=cursor)
            seen += [entry.id for entry in page.entries]
            assert page.summary is not None
            assert (page.summary.count, page.summary.amount) == (12, Decimal(9))
            cursor = page.next_cursor
            if cursor is None:
                break
        assert seen == ids


async def test_an_entry_that_comes_meanwhile_moves_no_page(book: Book, clock: Any) -> None:
    """A keyset is not an offset."""
    await book.put_workspace("w", payer="user:u")
    ids = await fill(book, clock)
    first = await book.entries("user:u", limit=5)
    clock.now += timedelta(days=1)
    await book.record("a", entity="user:u", source="s", description="m", amount="1", event_key="new")
    second = await book.entries("user:u", limit=5, cursor=first.next_cursor)
    assert [entry.id for entry in second.entries] == ids[5:10]


async def test_each_filter_counts_what_it_lists(book: Book, clock: Any) -> None:
    """Actor, workspace, source, category, [start, end) of occurred at, period; alone and together; the summary with them."""
    await book.put_workspace("w", payer="user:u")
    await fill(book, clock)
    (period,) = await book.periods("user:u")
    wanted: list[tuple[dict[str, Any], int, str]] = [
        ({"actor": "a0"}, 6, "4.50"),
        ({"workspace": "w"}, 6, "6.00"),
        ({"source": "copilot"}, 6, "3.00"),
        ({"category": "tool"}, 6, "3.00"),
        ({"start": utc(2026, 6, 12, 12)}, 8, "6.00"),
        ({"end": utc(2026, 6, 12, 12)}, 4, "3.00"),
        ({"start": utc(2026, 6, 12, 12), "end": utc(2026, 6, 13, 12)}, 2, "1.50"),
        ({"period": period.id}, 12, "9.00"),
        ({"period": -1}, 0, "0"),
        ({"actor": "a1", "source": "workflow", "start": utc(2026, 6, 12)}, 2, "2.00"),
        ({"actor": "nobody"}, 0, "0"),
    ]
    for said, number, amount in wanted:
        page = await book.entries("user:u", **said)
        assert page.summary is not None
        assert (len(page.entries), page.summary.count) == (number, number)
        assert page.summary.amount == Decimal(amount)


async def test_an_entry_says_all_that_was_said(book: Book, clock: Any) -> None:
    """Both times, the references, the metadata, what it corrects and why."""
    said = {"workflow": "f", "execution": "e", "source_reference": "r", "line": "l", "metadata": {"tokens": [1, 2]}}
    occurred = clock.now - timedelta(hours=1)
    reply = await book.record(
        "u",
        source="s",
        description="m",
        amount="1.50",
        category="tool",
        occurred_at=occurred,
        **said,  # type: ignore[arg-type]
    )
    await book.correct(reply.entries[0].id, amount="-0.5", reason="wrong price", event_key="fix")
    fix, entry = sorted((await book.entries("user:u")).entries, key=lambda one: one.amount)
    assert {name: getattr(entry, name) for name in said} == said
    assert (entry.occurred_at, entry.recorded_at, entry.amount) == (occurred, clock.now, Decimal("1.5"))
    assert (fix.corrects, fix.reason, fix.category) == (entry.id, "wrong price", "tool")


async def test_an_unknown_cursor_is_an_error(book: Book) -> None:
    """Whatever no page gave out; nothing is guessed."""
    for cursor in (
        "",
        "x",
        "é",
        "\0",
        "\ud800",
        "W10",
        "bnVsbA",
        "WyJ4IiwieSJd",
        "e30",
        "WzEsMl0",
        "WzEsMiwzXQ",
        7,
        "=" * 9,
    ):
        with pytest.raises(InvalidCursor):
            await book.entries("user:u", cursor=cursor)  # type: ignore[arg-type]


async def test_a_cursor_of_another_list_is_an_error(book: Book, clock: Any) -> None:
    """It says where one list goes on: of another it would leave entries out without a word. Page size and summary are free."""
    await book.put_workspace("w", payer="user:u")
    await fill(book, clock)
    said: dict[str, Any] = {"source": "copilot", "start": utc(2026, 6, 1)}
    cursor = (await book.entries("user:u", **said, limit=2)).next_cursor
    others: list[dict[str, Any]] = [
        {"source": "workflow"},
        {"source": None},
        {"start": utc(2026, 6, 2)},
        {"start": None},
        {"end": utc(2026, 7, 1)},
        {"actor": "a0"},
        {"workspace": "w"},
        {"category": "tool"},
        {"period": 1},
    ]
    for other in others:
        with pytest.raises(InvalidCursor, match="another list"):
            await book.entries("user:u", **(said | other), cursor=cursor)
    with pytest.raises(InvalidCursor, match="another list"):
        await book.entries("user:other", **said, cursor=cursor)
    elsewhere = said | {"start": utc(2026, 6, 1).astimezone(ZoneInfo("Asia/Tokyo"))}
    assert len((await book.entries("user:u", **elsewhere, cursor=cursor, limit=9, summary=False)).entries) == 4


async def test_what_is_asked_for_is_checked(book: Book, clock: Any) -> None:
    """A limit out of range, a naive time, text that is none: an error of ours."""
    naive = clock.now.replace(tzinfo=None)
    wrong: list[dict[str, Any]] = [
        *({"limit": limit} for limit in (0, -1, 1001, None, "5", True, 1.0)),
        {"start": naive},
        {"end": naive},
        {"start": "2026-06-01"},
        *({name: "\0"} for name in ("actor", "workspace", "source", "category")),
        *({name: "\ud800"} for name in ("actor", "workspace", "source", "category")),
        {"actor": 7},
        {"period": "1"},
        {"period": 2**63},
    ]
    for said in wrong:
        with pytest.raises(MeterbookError):
            await book.entries("user:u", **said)


async def test_without_a_summary_none_is_made(book: Book) -> None:
    """For who pages on."""
    await book.record("u", source="s", description="m", amount="1", event_key="k")
    page = await book.entries("user:u", summary=False)
    assert (page.summary, len(page.entries)) == (None, 1)
    with pytest.raises(InvalidUsage):
        await book.entries("user:u", limit=0)


async def test_an_organization_that_nobody_knows_is_an_error(book: Book) -> None:
    """Not an empty page: a name that was mistyped would look like somebody who owes nothing. A person may be new."""
    with pytest.raises(UnknownEntity):
        await book.entries("organization:typo")
    assert (await book.entries("user:new")).entries == ()


async def test_a_page_of_entries_reads_no_more_than_it_shows(book: Book, clock: Any, database_url: str) -> None:
    """However many the payer has: the first page, one further on, filters that often match; a summary comes from kept sums."""
    for part in range(20):
        clock.now += timedelta(minutes=1)
        line = {"actor": "u", "description": "d", "amount": "0.01"}
        await book.record_many(
            [line | {"source": ("wand", "copilot")[n % 2], "event_key": f"{part}/{n}"} for n in range(100)]
        )
    await book.compact()
    period = (await book.usage("user:u")).period.id
    last = (await book.entries("user:u", limit=100)).entries[-1]
    asked: dict[str, Any] = dict.fromkeys(("actor", "workspace", "source", "category", "start", "end"))
    asked |= {"kind": "user", "external_id": "u", "period": period, "rows": 11, "summary": True, "by_sums": True}
    asked |= {"after_time": None, "after_key": None}
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("analyze")
        for more in ({}, {"after_time": last.recorded_at, "after_key": last.id}, {"source": "wand"}, {"actor": "u"}):
            plan = conn.execute("explain (analyze, format json) " + SQL["list_entries"], asked | more).fetchone()
            assert plan is not None
            looked_at = _rows_of("usage_log", plan[0][0]["Plan"])
            assert 11 <= looked_at <= 60, more


def _rows_of(table: str, node: dict[str, Any]) -> int:
    """How many rows of a table and its partitions a plan looked at."""
    looked_at = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    own = looked_at if node.get("Relation Name", "").startswith(table) else 0
    return int(own) + sum(_rows_of(table, below) for below in node.get("Plans", []))


@pytest.mark.parametrize(
    "filter_", [{}, {"source": "wand"}, {"actor": "u1"}, {"actor": "nobody"}, {"actor": "u1", "source": "wand"}]
)
async def test_a_summary_is_the_same_from_kept_sums_and_from_rows(book: Book, filter_: dict[str, str]) -> None:
    """Folded, unfolded or half; a filter that no kept sum answers gives what the entries themselves give."""
    await book.put_organization("acme", owner="u0")
    await book.put_subscription(
        id="s", owner="organization:acme", plan="team", status="active", starts_at=P1[0], ends_at=P1[1], seats=2
    )
    await book.add_member("acme", "u1")
    for part in range(3):
        for n in range(12):
            await book.record(
                f"u{n % 2}", source=("wand", "copilot", "mcp")[n % 3], description="d", amount=f"0.{n + 1:02}", event_key=f"{part}/{n}"
            )  # fmt: skip
        period = (await book.usage("organization:acme")).period.id
        whole = await book.entries("organization:acme", period=period, limit=1000, **filter_)  # type: ignore[arg-type]
        assert whole.summary is not None
        assert whole.summary.count == len(whole.entries)
        assert whole.summary.amount == sum(each.amount for each in whole.entries)
        if part == 0:
            await book.compact()
