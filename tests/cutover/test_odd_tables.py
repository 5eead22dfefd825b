"""Tables as products really have them: what is no money, nobody's, or not understood is left out with its reason, and stops nobody else."""

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from meterbook import Book, mappings
from meterbook.core.cutover import CutoverFinding
from meterbook.core.legacy_mapping import LegacyMapping, parse_mapping
from meterbook.errors import CutoverRefused, InvalidMapping
from meterbook.mappings import load_mapping
from tests.conftest import Clock
from tests.cutover.test_shadow import START, team, write
from tests.ledger import query, utc
from tests.legacy_product.history import Product

ORIGIN = load_mapping()
LOST = (
    "insert into public.subscription select 'lost', plan, null, status, period_start, period_end from"
    " public.subscription limit 1"
)
STATS, SUBSCRIPTION = "update public.user_stats set", "update public.subscription set"


@pytest.fixture(autouse=True)
def product(legacy_url: str, clock: Clock) -> None:
    """Two people with a plan and 150.00 on the counter, on day ten."""
    made = Product()
    for name in ("fine", "odd"):
        made.user(name)
        made.subscription(name, "pro_6000")
        made.charge(name, "150", START)
    made.write(legacy_url)
    clock.now = utc(2026, 6, 11)


async def planned(book: Book, mapping: LegacyMapping = ORIGIN) -> Sequence[CutoverFinding]:
    async with book.cutover(mapping) as cutover:
        _ = [one async for one in cutover.plan()]
        return cutover.findings


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (f"{STATS} current_period_cost = 'NaN'", "odd_counter"),
        (f"{STATS} current_period_cost = 'Infinity'", "odd_counter"),
        (f"{STATS} current_period_cost = 1e13", "odd_counter"),
        (f"{STATS} last_period_cost = 'NaN'", "odd_counter"),
        (f"{STATS} current_usage_limit = 'NaN'", "odd_counter"),
        (f"{STATS} current_usage_limit = -5", "negative_counter"),
        (f"{STATS} credit_balance = 1e17", "odd_counter"),
        (f"{STATS} billed_overage_this_period = 'NaN'", "odd_counter"),
        (f"{SUBSCRIPTION} status = 'ACTIVE'", "unknown_status"),
        (f"{SUBSCRIPTION} status = null", "unknown_status"),
        (f"{SUBSCRIPTION} seats = -2", "no_seats"),
        (f"{SUBSCRIPTION} period_end = 'infinity'", "no_period"),
        (f"{SUBSCRIPTION} period_start = '2026-07-01', period_end = '2026-08-01'", "period_not_begun"),
    ],
)
async def test_what_is_not_understood_is_left_out_and_stops_nobody_else(
    legacy_url: str, book: Book, change: str, code: str
) -> None:
    """Said by the plan and by each round; nobody becomes a free user by a word or a figure that nobody knows."""
    query(legacy_url, "alter table public.subscription alter status drop not null")
    query(legacy_url, f"{change} where {'user_id' if 'user_stats' in change else 'reference_id'} = 'odd'")
    found = [one for one in await planned(book) if one.refused]
    assert [(one.code, one.subject) for one in found] == [(code, "user:odd")]
    async with book.cutover(ORIGIN) as cutover:
        done = await cutover.shadow()
        assert (done.entities, [one.subject for one in await cutover.refusals()]) == (1, ["user:odd"])
        assert [(one.entity, one.outcome) async for one in cutover.switch()] == [("user:fine", "switched")]
        assert (await cutover.absorb()).recorded == 0


@pytest.mark.parametrize(
    ("changes", "code", "subject"),
    [
        (["insert into public.user_stats (user_id, current_period_cost) values ('', 3)"], "counter_without_user", "counter"),
        (
            ["insert into public.member values ('1', 'odd', 'gone', 'member', '2026-05-01')"],
            "unknown_organization",
            "user:odd",
        ),
        (
            [
                "alter table public.subscription alter reference_id drop not null",
                LOST,
            ],
            "no_owner",
            "subscription:lost",
        ),
    ],
)  # fmt: skip
async def test_what_is_nobodys_is_said(
    legacy_url: str, book: Book, changes: Sequence[str], code: str, subject: str
) -> None:
    """A counter without a user, a member of an organization that is not there, a subscription without an owner."""
    for change in changes:
        query(legacy_url, change)
    assert [(one.code, one.subject) for one in await planned(book) if one.refused] == [(code, subject)]
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        done = {one.entity: one.outcome async for one in cutover.switch()}
    assert done["user:fine"] == "switched"


async def test_two_rows_of_one_user_are_refused_and_not_chosen_from(book: Book) -> None:
    """A source that gives a user's counters twice."""
    source = "(select user_id, 1.0 as c from public.user_stats union all select 'odd', 2.0) as x"
    mapping = parse_mapping(f'[counter]\nfrom = "{source}"\nuser_id = "user_id"\nrunning = "c"\n')
    found = [(one.code, one.subject) for one in await planned(book, mapping) if one.refused]
    assert set(found) == {("counter_twice", "user:odd")}
    async with book.cutover(mapping) as cutover:
        await cutover.shadow()
        assert [(one.entity, one.outcome) async for one in cutover.switch()] == [("user:fine", "switched")]


async def test_an_owner_that_names_no_entity_is_a_mistake_of_the_mapping(book: Book) -> None:
    """It would make every customer a free one; so nothing begins."""
    text = (Path(mappings.__file__).parent / "origin.toml").read_text()
    lines = ['owner = "reference_id"' if line.startswith("owner ") else line for line in text.splitlines()]
    mapping = parse_mapping("\n".join(lines))
    with pytest.raises(InvalidMapping, match=r"subscription\.owner: gives '(fine|odd)', not user:<id>"):
        await planned(book, mapping)
    async with book.cutover(mapping) as cutover:
        with pytest.raises(InvalidMapping):
            await cutover.shadow()


@pytest.mark.parametrize(
    "running",
    [
        "1 from public.user_stats; create table public.pwned (x integer); select 1",
        "1) as x from public.user_stats; create table public.pwned (x integer); select (1",
        "1 from public.user_stats -- ",
        "sum(current_period_cost)",
    ],
)
async def test_an_expression_is_one_expression_and_nothing_else(legacy_url: str, book: Book, running: str) -> None:
    """No second statement hides in it, and one that can't be computed row by row is refused as one of the mapping."""
    mapping = parse_mapping(f'[counter]\nfrom = "public.user_stats"\nuser_id = "user_id"\nrunning = "{running}"\n')
    with pytest.raises(InvalidMapping, match="counter"):
        await planned(book, mapping)
    assert query(legacy_url, "select to_regclass('public.pwned')") == [(None,)]


async def test_names_that_need_quotes_and_comments_in_expressions_are_read(legacy_url: str, book: Book) -> None:
    """Another schema, capitals, a view, a percent sign, a comment at the end."""
    query(legacy_url, 'create schema "The App"')
    query(
        legacy_url,
        'create view "The App"."User Stats" as select user_id as "userId", current_period_cost as "cost %%" from public.user_stats',
    )
    text = """
[counter]
from = '"The App"."User Stats"'
user_id = '"userId"'
running = '"cost %" -- of this month'
where = '''"userId" like 'f%' -- fine alone'''
"""
    async with book.cutover(parse_mapping(text)) as cutover:
        assert [(one.entity, one.baseline) async for one in cutover.plan()] == [("user:fine", Decimal(150))]
        await cutover.shadow()
        assert [one.outcome async for one in cutover.switch()] == ["switched"]


async def test_rows_of_the_log_that_are_no_usage_stop_nobody(legacy_url: str, book: Book, clock: Clock) -> None:
    """NaN, infinity, a time that no calendar has, one id twice: said as a difference, and everything else goes on."""
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        query(legacy_url, "alter table public.usage_log drop constraint usage_log_pkey")
        for amount in ("'NaN'", "'Infinity'", "-3"):
            query(
                legacy_url,
                f"insert into public.usage_log values ('x' || {amount}, 'odd', 'model', 's', 'd', {amount},"
                " null, null, null, '2026-06-11')",
            )
        query(
            legacy_url,
            "insert into public.usage_log values ('never', 'odd', 'model', 's', 'd', 1, null, null, null, 'infinity')",
        )
        write(legacy_url, "odd", "1", "twice")
        write(legacy_url, "odd", "2", "twice")
        write(legacy_url, "fine", "2", "row")
        clock.now += timedelta(minutes=1)
        done = await cutover.shadow()
        said = {one.entity: one.difference async for one in cutover.compare()}
        assert (done.rows_refused, said["user:fine"], done.differing) == (4, Decimal(0), 1)
        assert said["user:odd"] in (Decimal(1), Decimal(2))
        async for one in cutover.switch(despite_differences=True):
            assert (one.entity, one.outcome) == (one.entity, "switched")
    assert (await book.usage("user:odd")).total == Decimal(153)


async def test_a_counter_that_becomes_no_number_keeps_nobody_else_waiting(
    legacy_url: str, book: Book, clock: Clock
) -> None:
    """In shadow its entity is left out; after the switch nothing of it is absorbed, and that is said."""
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        query(legacy_url, f"{STATS} current_period_cost = 'NaN' where user_id = 'odd'")
        clock.now += timedelta(minutes=1)
        await cutover.shadow()
        assert [one.subject for one in await cutover.refusals()] == ["user:odd"]
        query(legacy_url, f"{STATS} current_period_cost = 150 where user_id = 'odd'")
        await cutover.shadow()
        assert {one.outcome async for one in cutover.switch()} == {"switched"}
        query(legacy_url, f"{STATS} current_period_cost = 'NaN' where user_id = 'odd'")
        query(legacy_url, f"{STATS} current_period_cost = 151 where user_id = 'fine'")
        done = await cutover.absorb()
    assert (done.recorded, done.notes) == (Decimal(1), ("user:odd is NaN: nothing of it is absorbed",))


async def test_an_organizations_odd_figures_leave_it_out(legacy_url: str, book: Book, clock: Clock) -> None:
    """Departed usage or credits that are no money: the plan says so, it is not switched, and the others are."""
    query(legacy_url, "truncate public.user_stats, public.subscription, public.usage_log")
    await team(legacy_url, clock, "m")
    query(legacy_url, "update public.organization set departed_member_usage = 'NaN'")
    assert [(one.code, one.subject) for one in await planned(book) if one.refused] == [
        ("odd_counter", "organization:team")
    ]
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        assert {one.entity: one.outcome async for one in cutover.switch()}["organization:team"] == "refused"
        query(legacy_url, "update public.organization set departed_member_usage = 0, credit_balance = -1")
        await cutover.shadow()
        (done,) = [one async for one in cutover.switch("organization:team")]
    assert (done.outcome, done.reason) == ("refused", "credits is -1")


async def test_a_product_without_users_has_nothing_to_wait_for(legacy_url: str, book: Book) -> None:
    """Every step ends and does nothing."""
    query(legacy_url, "truncate public.user_stats, public.subscription, public.usage_log")
    async with book.cutover(ORIGIN) as cutover:
        assert [one async for one in cutover.plan()] == []
        assert (await cutover.shadow()).entities == 0
        assert [one async for one in cutover.switch()] == []
        assert (await cutover.absorb()).recorded == 0
        assert await cutover.retire() == 0
        with pytest.raises(CutoverRefused, match="is not compared"):
            _ = [one async for one in cutover.switch("user:nobody")]


@pytest.mark.parametrize("zone", ["America/New_York", "Pacific/Auckland"])
async def test_a_log_in_local_time_dates_and_feeds_what_happened_when(
    legacy_url: str, book: Book, clock: Clock, zone: str
) -> None:
    """A column without zone that was written in another one than UTC: the period's edges, fresh rows and history are those of real time."""
    text = (Path(mappings.__file__).parent / "origin.toml").read_text()
    mapping = parse_mapping(
        text.replace(
            "occurred_at = \"created_at at time zone 'UTC'", f"occurred_at = \"created_at at time zone '{zone}'"
        )
    )
    assert mapping.digest != ORIGIN.digest
    local = "insert into public.usage_log select %s, 'fine', 'model', 's', 'd', 1, null, null, null, %s::timestamptz at time zone %s"
    query(legacy_url, "truncate public.usage_log")
    for name, at in (("before", START - timedelta(minutes=1)), ("after", START + timedelta(minutes=1))):
        query(legacy_url, local, name, at, zone)
    query(legacy_url, f"{STATS} current_period_cost = 1 where user_id = 'fine'")
    async with book.cutover(mapping) as cutover:
        plan = {one.entity: one async for one in cutover.plan()}
        assert (plan["user:fine"].audit, plan["user:fine"].dated) == (Decimal(1), Decimal(1))
        await cutover.shadow()
        clock.now += timedelta(minutes=1)
        query(legacy_url, local, "fresh", clock.now, zone)
        query(legacy_url, f"{STATS} current_period_cost = 2 where user_id = 'fine'")
        clock.now += timedelta(minutes=1)
        done = await cutover.shadow()
        assert (done.rows, done.differing) == (1, 0)
        assert (await cutover.import_history()).rows == 1
    assert (await book.usage("user:fine")).by_day == {0: 1, 10: 1}


async def test_a_log_without_an_index_is_said_before_anything_reads_it(legacy_url: str, book: Book) -> None:
    """Each look asks for rows of single users: on a large table that is a scan a user."""
    assert [one.code for one in await planned(book)] == []
    query(
        legacy_url,
        "insert into public.usage_log select 'n' || n, 'u' || n, 'model', 's', 'd', 0, null, null, null, '2026-01-01'"
        " from generate_series(1, 100000) n",
    )
    query(legacy_url, "analyze public.usage_log")
    assert [one.code for one in await planned(book)] == []
    query(legacy_url, "drop index public.usage_log_user_created")
    assert [one.code for one in await planned(book)] == ["audit_without_index"]
