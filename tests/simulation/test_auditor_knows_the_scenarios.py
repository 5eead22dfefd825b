"""The auditor against SCENARIOS.md: a model that gave another figure than a worked example could judge nothing."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.simulation.auditor import Auditor, Period, Refused, Reply, Said
from tests.simulation.figures import FREE_END, FREE_START, PLANS, ZERO, Figures, percent_of, status_of

Window = tuple[datetime, datetime]


def utc(month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> datetime:
    return datetime(2026, month, day, hour, minute, second, tzinfo=UTC)


P0, P1, P2 = (utc(5, 1), utc(6, 1)), (utc(6, 1), utc(7, 1)), (utc(7, 1), utc(8, 1))
LATE = utc(7, 1, 2)


def money(text: str) -> Decimal:
    return Decimal(text)


def assert_same(found: object, expected: object) -> None:
    """Figures side by side; 1, 1.0 and 1.00 are the same amount."""
    assert found == expected


def audit(now: datetime | None = None) -> Auditor:
    return Auditor(now or utc(6, 20, 12))


def subscribe(book: Auditor, owner: str = "user:u", plan: str = "pro_6000", window: Window = P1, **terms: Any) -> None:
    known = book.subscriptions.get(f"sub {owner}")
    at = (known.starts, known.ends) if known and window == P1 else window
    terms = {"status": "active", "stripe_customer": "cus", "stripe_subscription": "sub"} | terms
    book.put_subscription(id=f"sub {owner}", owner=owner, plan=plan, starts_at=at[0], ends_at=at[1], **terms)


def team(book: Auditor, seats: int | None = 2, plan: str = "team_6000", window: Window = P1, **terms: Any) -> None:
    book.put_organization("o", "boss")
    subscribe(book, "organization:o", plan, window, seats=seats, **terms)


def use(book: Auditor, actor: str, amount: str, key: str | None = None, **said: Any) -> Reply:
    return book.record([Said(actor, amount, event_key=key or f"key {len(book.entries)}", **said)])


def lump(book: Auditor, amount: str, day: int = 0, actor: str = "u", start: datetime = P1[0], **said: Any) -> Reply:
    return use(book, actor, amount, occurred_at=start + timedelta(days=day, hours=1), **said)


def figures(book: Auditor, entity: str = "user:u") -> Figures:
    return book.figures(book.current(entity))


def dated(book: Auditor, entity: str = "user:u") -> list[Period]:
    return [period for period in book.periods if period.entity == entity and not period.free]


def charged(book: Auditor, entity: str = "user:u") -> list[str]:
    return [str(charge.amount) for period in dated(book, entity) for charge in period.charges]


# ---------------------------------------------------------------------------------------------------------- writing


def test_s01_plan_table() -> None:
    """team_6000 × 4: 120 / 1.00; seats null or 0 as 1; an unknown plan is an error."""
    book = audit()
    team(book, 4)
    assert_same(book.allowance_of(book.current("organization:o")), (120, 1, True))
    subscribe(book, "user:u", seats=0)
    assert_same(book.allowance_of(book.current("user:u")), (30, money("0.25"), True))
    with pytest.raises(Refused, match="unknown_plan"):
        subscribe(book, "user:v", "gold")


def test_s03_priority() -> None:
    """Same rank: the organization's; personal enterprise beats a team; only entitled ones count."""
    book = audit()
    team(book, 1, "pro_6000")
    subscribe(book, "user:u", "pro_25000")
    book.add_member("o", "u")
    assert book.payer("u") == "organization:o"
    subscribe(book, "organization:o", "pro_6000", status="unpaid")
    assert book.payer("u") == "user:u"
    subscribe(book, "organization:o", "team_6000", status="past_due")
    assert book.payer("u") == "organization:o"
    subscribe(book, "user:v", "enterprise")
    book.add_member("o", "v")
    assert book.payer("v") == "user:v"


def test_s04_duplicate() -> None:
    """Three times the same key → 1.25, 0, 0."""
    book = audit()
    assert [use(book, "u", "1.25", "K").amount for _ in range(3)] == [money("1.25"), 0, 0]
    assert figures(book).total == money("1.25")


def test_s05_two_equal_lines_and_s06_a_reordered_retry() -> None:
    """Equal lines both count; the batch again, in any order, adds nothing."""
    book = audit()
    twice = [Said("u", "0.10", execution="e"), Said("u", "0.10", execution="e")]
    assert_same((book.record(twice).inserted, book.record(twice).inserted), (2, 0))
    batch = [Said("u", "0.10", description="A", execution="f"), Said("u", "0.20", description="B", execution="f")]
    book.record(batch)
    book.record(batch[::-1])
    assert figures(book).total == money("0.50")


def test_s08_invalid_costs() -> None:
    """Refused whole; 0 is accepted and writes nothing."""
    book = audit()
    for bad in ("NaN", "Infinity", "-Infinity", "abc", "-1", "1e-13", "1e12"):
        with pytest.raises(Refused):
            book.record([Said("u", "1", event_key="good"), Said("u", bad, event_key="bad")])
    assert use(book, "u", "0").entries == ()
    assert book.entries == []


def test_s09_replay_with_different_content() -> None:
    """Another amount, or another entity named, is a conflict; the sum stays."""
    book = audit()
    use(book, "u", "1.00", "K")
    for said in ({"amount": "1.10"}, {"amount": "1.00", "entity": "user:v"}):
        with pytest.raises(Refused, match="key_conflict"):
            use(book, "u", key="K", **said)
    assert_same((figures(book).total, book.conflicts), (1, 2))


def test_s13_pause_and_resume() -> None:
    """0.10 at the pause, 0.25 and a fee at the end → 0.255, also if the end is repeated."""
    book = audit()
    for total in ("0.10", "0.25", "0.25"):
        book.record_cumulative("e1", Said("u", total))
        if total == "0.25":
            use(book, "u", "0.005", "e1 fee", category="fixed")
    assert figures(book).total == money("0.255")


def test_s14_cumulative() -> None:
    """The maximum, whatever the order; naming another payer or actor is a conflict."""
    book = audit()
    rises = [str(book.record_cumulative("r", Said("u", total))) for total in ("0.4", "0.1", "0.8", "0.3", "0.8", "0.6")]
    assert rises == ["0.4", "0", "0.4", "0", "0", "0"]
    for other in (Said("v", "2"), Said("u", "2", entity="user:v")):
        with pytest.raises(Refused, match="key_conflict"):
            book.record_cumulative("r", other)
    assert figures(book).total == money("0.8")


def test_s17_corrections() -> None:
    """5.00 − 2.00 → 3.00, once; below zero is refused; one of a closed period shows in the open one."""
    book = audit()
    subscribe(book)
    use(book, "u", "5.00", "K")
    for _ in range(2):
        book.correct("K", "-2.00", "fix")
    assert figures(book).total == 3
    with pytest.raises(Refused, match="correction_refused"):
        book.correct("K", "-3.01", "more")
    book.at(LATE)
    book.sweep()
    book.correct("K", "-1.00", "late")
    assert_same((figures(book).total, figures(book).effective), (-1, 0))
    assert book.figures(dated(book)[0]).total == 3


# ------------------------------------------------------------------------------------------------------ attribution


def test_s19_s20_s21_who_pays_and_which_period() -> None:
    """Free, personal, and the organization also when past due."""
    book = audit()
    assert_same((book.current("user:x").start, book.current("user:x").end), (FREE_START, FREE_END))
    subscribe(book, cancel_at_period_end=True)
    assert book.resolve("u").period == dated(book)[0].number
    team(book, window=(utc(6, 3), utc(7, 3)), status="past_due")
    book.add_member("o", "u")
    (entry,) = use(book, "u", "1").entries
    assert_same((entry.entity, book.periods[entry.period].start), ("organization:o", utc(6, 3)))


def test_s24_workspace_payer() -> None:
    """Exactly that entity; unknown is refused; without a payer it is left to the actor."""
    book = audit()
    book.put_organization("y", "z")
    book.put_workspace("w", "organization:y")
    book.put_workspace("v", None)
    assert use(book, "a", "2.00", workspace="w").entries[0].entity == "organization:y"
    assert use(book, "a", "2.00", workspace="v").entries[0].entity == "user:a"
    with pytest.raises(Refused):
        use(book, "a", "2.00", workspace="nowhere")


# ------------------------------------------------------------------------------------------------- sums and cutover


def test_s25_baseline_and_s74_close() -> None:
    """18.40 + 3.10 = 21.50, which the closed period keeps, however often it is closed."""
    book = audit()
    subscribe(book, plan="enterprise")
    book.baseline("user:u", "18.40", [(utc(6, 2), "18.40")])
    use(book, "u", "3.10")
    assert figures(book).total == money("21.50")
    book.at(LATE)
    book.sweep()
    book.sweep()
    assert book.figures(dated(book)[0]).total == money("21.50")
    assert figures(book).total == 0


def test_s27_exactness() -> None:
    """1000 × 0.0000001 is exactly 0.0001."""
    book = audit()
    for number in range(1000):
        use(book, "u", "0.0000001", f"k{number}")
    assert figures(book).total == money("0.0001")


def test_s28_first_contact() -> None:
    """4.00 of 5.00: 80 %, warning."""
    book = audit()
    use(book, "u", "4.00")
    used, limit = book.used("user:u"), book.limit("user:u")
    assert_same((used, limit, percent_of(used, limit), status_of(used, limit)), (4, 5, 80, "warning"))


@pytest.mark.parametrize(("daily", "last", "refresh"), [("4.00", "10.00", "2.75"), ("1.00", "2.00", "2.75")])
def test_s29_legacy_refresh(daily: str, last: str, refresh: str) -> None:
    """The counter's audit rows have days, and are refreshed."""
    book = audit()
    subscribe(book)
    rows = [(P1[0] + timedelta(days=day, hours=1), daily) for day in range(10)]
    book.baseline("user:u", str(10 * money(daily)), rows)
    lump(book, last, 10)
    found = figures(book)
    assert found.refresh == money(refresh)
    assert found.effective == 10 * money(daily) + money(last) - money(refresh)


# ------------------------------------------------------------------------------------------------ refresh and overage


def test_s30_day_caps() -> None:
    """0.10 + 0.25 + 0.25 + 0.25 = 0.85 → 1.20."""
    book = audit()
    subscribe(book)
    for day, amount in ((0, "0.10"), (1, "0.25"), (2, "1.00"), (5, "0.30"), (5, "0.40")):
        lump(book, amount, day)
    assert_same((figures(book).refresh, figures(book).effective), (money("0.85"), money("1.20")))


def test_s32_pooled_and_s33_departed() -> None:
    """One cap a day for the pool; a member who left keeps having been refreshed."""
    book = audit()
    team(book, 3)
    for actor, amount in (("a", "0.70"), ("b", "0.10")):
        book.add_member("o", actor)
        lump(book, amount, actor=actor)
    book.remove_member("o", "b")
    assert_same((figures(book, "organization:o").refresh, book.used("organization:o")), (money("0.75"), money("0.05")))


@pytest.mark.parametrize(
    ("plan", "seats", "used", "refresh", "overage"),
    [
        ("pro_6000", 1, "150", "5.00", "115.00"),
        ("pro_25000", 1, "140", "30.00", "0"),
        ("pro_25000", 1, "170", "30.00", "15.00"),
        ("pro", 1, "31.40", "1.15", "10.25"),
        ("team_6000", 3, "137.50", "12.25", "35.25"),
        ("team", 2, "100", "4.80", "15.20"),
        ("team_25000", None, "200", "0", "75.00"),
        ("enterprise", 1, "5000", "0", "0"),
        ("pro_6000", 1, "34.00", "4.50", "0"),
    ],
)
def test_s36_table(plan: str, seats: int | None, used: str, refresh: str, overage: str) -> None:
    """total − refresh − included, the refresh spread over as many days as it takes."""
    book = audit(utc(7, 1) - timedelta(minutes=1))
    subscribe(book, plan=plan, seats=seats)
    rows, left, day = [], money(refresh), 0
    while left > 0:
        part = min(left, PLANS[plan].refresh * (seats or 1))
        rows.append((P1[0] + timedelta(days=day), str(part)))
        left, day = left - part, day + 1
    book.baseline("user:u", used, rows)
    assert figures(book).refresh == money(refresh)
    assert figures(book).overage == money(overage)


def test_s38_upgrade() -> None:
    """Nothing is refunded, and the surplus is used up first."""
    book = audit()
    subscribe(book)
    lump(book, "150.25")
    book.sweep()
    subscribe(book, plan="pro_25000")
    lump(book, "0.75")
    assert figures(book).overage == 25
    book.sweep()
    lump(book, "195.00")
    book.sweep()
    assert_same((charged(book), figures(book).overage), (["120.00", "100.00"], 220))


def test_s39_downgrade() -> None:
    """Waits for the next period."""
    book = audit()
    subscribe(book, plan="pro_25000")
    lump(book, "121.00")
    subscribe(book, plan="pro_6000")
    assert figures(book).overage == 0
    book.at(LATE)
    assert book.limit("user:u") == 30


# ------------------------------------------------------------------------------------------------------------ limits


@pytest.mark.parametrize(
    ("used", "limit", "percent", "status"),
    [
        ("39.99", 50, 79, "ok"),
        ("40.00", 50, 80, "warning"),
        ("49.99", 50, 99, "warning"),
        ("50.00", 50, 100, "exceeded"),
        ("60", 50, 100, "exceeded"),
        ("0", 0, 100, "exceeded"),
        ("97.40", 120, 81, "warning"),
    ],
)
def test_s40_boundaries(used: str, limit: int, percent: int, status: str) -> None:
    """Compared exactly, shown cut."""
    assert percent_of(money(used), Decimal(limit)) == percent
    assert status_of(money(used), Decimal(limit)) == status


def test_s41_limits_of_organizations() -> None:
    """The stored one or the included; enterprise: the stored one, none denies everything."""
    book = audit()
    team(book, 4)
    for stored, limit in ((None, 120), ("80", 120), ("200", 200)):
        book.limits = {} if stored is None else {"organization:o": money(stored)}
        assert book.limit("organization:o") == limit
    subscribe(book, plan="enterprise")
    assert_same((book.limit("user:u"), book.check("u").allowed), (0, False))
    book.set_limit("user:u", "1500")
    assert_same((book.limit("user:u"), book.check("u").allowed), (1500, True))


def test_s42_edits() -> None:
    """Not below the included, not free, not by a member, not past due or blocked; stored half up."""
    book = audit()
    subscribe(book)
    team(book, 4)
    book.add_member("o", "m")
    book.set_limit("user:u", "30", by="u")
    book.set_limit("organization:o", "250.555", by="boss")
    assert book.limits["organization:o"] == money("250.56")
    refused = [("user:u", "29.99", "u"), ("user:free", "50", "free"), ("organization:o", "200", "m")]
    refused += [("organization:o", "119.99", "boss")]
    for edit in refused:
        with pytest.raises(Refused, match="limit_refused"):
            book.set_limit(*edit)
    book.block("user:u", "dispute")
    subscribe(book, "organization:o", "team_6000", seats=4, status="past_due")
    for edit in (("user:u", "50", "u"), ("organization:o", "200", "boss")):
        with pytest.raises(Refused, match="limit_refused"):
            book.set_limit(*edit)


def test_s43_what_the_limit_follows() -> None:
    """Free 5, pro 30, stored 75, upgrade 125, back 75, canceled 5."""
    book = audit()
    limits = [book.limit("user:u")]
    subscribe(book)
    limits.append(book.limit("user:u"))
    book.set_limit("user:u", "75")
    limits.append(book.limit("user:u"))
    subscribe(book, plan="pro_25000")
    limits.append(book.limit("user:u"))
    subscribe(book)
    book.at(LATE)
    limits.append(book.limit("user:u"))
    subscribe(book, status="canceled")
    limits.append(book.limit("user:u"))
    assert limits == [5, 30, 75, 125, 75, 5]


def test_s44_credits_raise_the_limit() -> None:
    """Nothing stored, credits 10 → 40; storing 60 makes it 60."""
    book = audit()
    subscribe(book)
    book.grant("user:u", "10", "g")
    use(book, "u", "12")
    assert_same((book.limit("user:u"), book.check("u").allowed), (40, True))
    book.set_limit("user:u", "60")
    assert book.limit("user:u") == 60


def test_s47_free_lifetime_allowance() -> None:
    """4.995 is allowed, 5.000 denied, also next month."""
    book = audit()
    allowed = []
    for amount in ("4.99", "0.005", "0.005"):
        use(book, "u", amount)
        allowed.append(book.check("u").allowed)
    book.at(LATE)
    assert [*allowed, book.check("u").allowed] == [True, True, False, False]


@pytest.mark.parametrize(
    ("limit", "used", "alerts"),
    [
        ("50", ["39.00", "1.00", "5.00"], [80]),
        (None, ["3.90", "0.20"], [80]),
        (None, ["3.90", "1.20"], [100]),
        ("50", ["39.00", "13.00"], [100]),
        ("50", ["41.00", "-2.00", "3.00"], [80]),
        ("50", ["41.00", "-7.00", "8.00"], [80, 80]),
    ],
)
def test_s48_alerts(limit: str | None, used: list[str], alerts: list[int]) -> None:
    """Each mark once a period, only the 100 % one on a jump over both, armed again only below 70 %."""
    book = audit()
    if limit:
        subscribe(book, plan="enterprise")
        book.set_limit("user:u", limit)
    for number, amount in enumerate(used):
        if amount.startswith("-"):
            book.correct("use 0", amount, f"fix {number}")
        else:
            use(book, "u", amount, f"use {number}")
        book.sweep()
    assert [mark for _, _, mark in book.alerts] == alerts


# -------------------------------------------------------------------------------------------------------- thresholds


def test_s49_edge_and_s53_once() -> None:
    """99.99: nothing; 100.00: one charge, however often it is looked at."""
    book = audit()
    subscribe(book)
    lump(book, "130.24")
    book.bill_threshold("user:u")
    assert charged(book) == []
    lump(book, "0.01")
    for _ in range(20):
        book.bill_threshold("user:u")
    assert charged(book) == ["100.00"]


@pytest.mark.parametrize(
    ("overage", "credits_", "charges", "left"),
    [("130.456", "25.10", ["105.36"], "0"), ("120", "500", ["0"], "380"), ("99.99", "500", [], "500")],
)
def test_s51_credits_first(overage: str, credits_: str, charges: list[str], left: str) -> None:
    """Credits pay first, the rest is charged, below the threshold nothing changes."""
    book = audit()
    subscribe(book)
    book.grant("user:u", credits_, "g")
    lump(book, str(money(overage) + money("30.25")))
    book.bill_threshold("user:u")
    assert_same((charged(book), book.balance("user:u")), (charges, money(left)))


def test_s54_no_side_effects_without_ids() -> None:
    """Nothing changes until the id is repaired; then 110.00, credits 0."""
    book = audit()
    subscribe(book, stripe_customer=None)
    book.grant("user:u", "40", "g")
    lump(book, "180.25")
    book.sweep()
    assert_same((charged(book), book.balance("user:u")), ([], 40))
    subscribe(book)
    book.sweep()
    assert_same((charged(book), book.balance("user:u")), (["110.00"], 0))


@pytest.mark.parametrize("case", ["past_due", "blocked", "enterprise"])
def test_s55_ineligible(case: str) -> None:
    """No charge at overage 500."""
    book = audit()
    subscribe(book, plan="enterprise" if case == "enterprise" else "pro_6000")
    lump(book, "530.25")
    if case == "blocked":
        book.block("user:u", "payment_failed")
    if case == "past_due":
        subscribe(book, status="past_due")
    book.sweep()
    assert charged(book) == []


def test_s56_organization_pool() -> None:
    """One charge of 130.00 for the organization; an owner's own block doesn't stop it."""
    book = audit()
    team(book, 2)
    book.block("user:boss", "payment_failed")
    for actor, amount in (("a", "60.50"), ("b", "130.00")):
        book.add_member("o", actor)
        lump(book, amount, actor=actor)
    book.sweep()
    assert charged(book, "organization:o") == ["130.00"]
    assert {entry.entity for entry in book.entries} == {"organization:o"}


def test_s59_order_of_deductions() -> None:
    """160.25 − 0.25 − 30 − 100 − 12.50 = 17.50."""
    book = audit()
    subscribe(book)
    lump(book, "130.25")
    book.sweep()
    lump(book, "30.00")
    book.grant("user:u", "12.50", "g")
    book.at(LATE)
    book.sweep()
    assert charged(book) == ["100.00", "17.50"]
    assert book.broken_closes() == []


# ------------------------------------------------------------------------------------------------------------- close


def test_s62_normal_close_and_s63_no_webhook() -> None:
    """115 of which 100 is billed, credits 4 → 11.00; P2 open, its own 2.00 changes nothing."""
    book = audit()
    subscribe(book)
    lump(book, "130.25")
    book.sweep()
    lump(book, "15.00")
    book.grant("user:u", "4.00", "g")
    book.at(LATE)
    use(book, "u", "2.00")
    book.sweep()
    first, second = dated(book)
    assert_same((charged(book), book.balance("user:u")), (["100.00", "11.00"], 0))
    assert_same((first.closed, second.closed, second.billed, book.used("user:u")), (True, False, 0, money("1.75")))
    assert book.figures(first).total == money("145.25")


@pytest.mark.parametrize(
    ("used", "credits_", "charges", "written_off"),
    [("30.74", None, [], "0.49"), ("30.75", None, ["0.50"], "0"), ("31.05", "0.40", ["0"], "0.40")],
)
def test_s65_minimum(used: str, credits_: str | None, charges: list[str], written_off: str) -> None:
    """Below 0.50 is written off, recorded; credits are spent before."""
    book = audit()
    subscribe(book)
    if credits_:
        book.grant("user:u", credits_, "g")
    lump(book, used)
    book.at(LATE)
    book.sweep()
    assert_same((charged(book), dated(book)[0].written_off), (charges, money(written_off)))
    assert_same((book.balance("user:u"), book.broken_closes()), (0, []))


@pytest.mark.parametrize(("day", "final"), [(29, "17.00"), (5, "16.75")])
def test_s66_grace_and_stragglers(day: int, final: str) -> None:
    """A late row of the attributed period counts in the last bucket; nothing closes before the grace is over."""
    book = audit(utc(6, 30, 23))
    subscribe(book)
    lump(book, "40.25", day)
    attribution = book.resolve("u")
    book.at(utc(7, 1, 0, 30))
    use(book, "u", "7.00", attribution=attribution)
    book.at(utc(7, 1, 0, 59, 59))
    book.sweep()
    assert not dated(book)[0].closed
    book.at(utc(7, 1, 1))
    book.sweep()
    assert charged(book) == [final]


def test_s67_after_the_close() -> None:
    """Booked to P2 with a reference to P1, once; P1 stays."""
    book = audit()
    subscribe(book)
    lump(book, "47.25")
    attribution = book.resolve("u")
    book.at(utc(7, 1, 5))
    book.sweep()
    use(book, "u", "3.00", "late", attribution=attribution)
    (entry,) = use(book, "u", "3.00", "late", attribution=attribution).entries
    first, second = dated(book)
    assert_same((entry.period, entry.belongs_to), (second.number, first.number))
    assert [book.figures(period).total for period in (first, second)] == [money("47.25"), 3]


def test_s67_cumulative_across_periods() -> None:
    """0.4 in P0; 1.0 and 1.3 in P1; 1.5 in P2 → 0.4 / 0.9 / 0.2."""
    book = audit(utc(5, 20))
    subscribe(book, window=P0)
    for now, total in ((utc(5, 21), "0.4"), (utc(6, 2), "1.0"), (utc(6, 3), "1.3"), (utc(7, 2), "1.5")):
        book.at(now)
        book.sweep()
        book.record_cumulative("r", Said("u", total))
    assert [book.figures(period).total for period in dated(book)] == [money("0.4"), money("0.9"), money("0.2")]


def test_s68_deferred_never_forgiven() -> None:
    """Not closed, credits untouched, until the id is repaired: 100.00. Without overage it closes."""
    book = audit()
    subscribe(book, stripe_customer=None)
    lump(book, "145.25")
    book.grant("user:u", "15", "g")
    book.at(LATE)
    book.sweep()
    assert_same((dated(book)[0].closed, book.balance("user:u")), (False, 15))
    subscribe(book, window=P2)
    book.sweep()
    assert_same((charged(book), book.balance("user:u")), (["100.00"], 0))
    other = audit()
    subscribe(other, stripe_customer=None)
    other.at(LATE)
    other.sweep()
    assert dated(other)[0].closed


def test_s71_interval_switch() -> None:
    """The truncated period closes with 47.50; the next is [06-11, 07-11), empty."""
    book = audit(utc(6, 11))
    subscribe(book)
    for day in range(10):
        lump(book, "8.00", day)
    subscribe(book, window=(utc(6, 11), utc(6, 11).replace(year=2027)), interval="year")
    book.at(utc(6, 11, 1))
    book.sweep()
    first, second = dated(book)
    assert_same((charged(book), book.figures(first).refresh), (["47.50"], money("2.50")))
    assert_same((second.start, second.end, figures(book).total), (utc(6, 11), utc(7, 11), 0))


def test_s72_deletion() -> None:
    """70.00 − credits 20.00 = 50.00; the limit is back to 5."""
    book = audit()
    subscribe(book)
    lump(book, "100.25")
    book.grant("user:u", "20.00", "g")
    subscribe(book, status="canceled")
    book.at(utc(6, 20, 13))
    book.sweep()
    book.sweep()
    assert_same((charged(book), book.balance("user:u"), book.limit("user:u")), (["50.00"], 0, 5))


# ------------------------------------------------------------------------------------------------------- membership


def test_s75_join_in_the_middle() -> None:
    """The organization pays from the joining; the personal period keeps what it has and closes with 28.75."""
    book = audit(utc(6, 5, 12))
    subscribe(book)
    team(book, 3, window=(utc(6, 3), utc(7, 3)))
    for day in range(5):
        lump(book, "12.00", day)
    book.at(utc(6, 6))
    book.add_member("o", "u")
    for at in (utc(6, 6, 1), utc(6, 7, 1)):
        book.at(at)
        use(book, "u", "20.00")
    book.at(utc(6, 10))
    use(book, "boss", "70.25")
    found = figures(book, "organization:o")
    assert_same((found.total, found.refresh, found.overage), (money("110.25"), money("2.25"), 18))
    assert book.cancellations == [("user:u", "sub user:u", True)]
    book.at(LATE)
    book.sweep()
    assert charged(book) == ["28.75"]
    book.remove_member("o", "u")
    assert_same((book.payer("u"), book.limit("user:u")), ("user:u", 5))


def test_leaving_takes_back_a_cancellation_of_ours_only() -> None:
    """§12: ours is taken back, the person's own stays."""
    book = audit()
    team(book, 3)
    subscribe(book)
    subscribe(book, "user:v", cancel_at_period_end=True)
    for user in ("u", "v"):
        book.add_member("o", user)
        book.remove_member("o", user)
    assert [book.subscriptions[f"sub user:{user}"].cancel for user in "uv"] == [False, True]
    assert book.cancellations == [("user:u", "sub user:u", True), ("user:u", "sub user:u", False)]


def test_s78_conversion() -> None:
    """The personal segment closes with 50.00; the organization starts at 0, limit 60, with the credits that are left."""
    book = audit()
    subscribe(book)
    lump(book, "80.25")
    book.grant("user:u", "7", "g")
    book.put_organization("o", "u")
    book.put_subscription(
        id="sub user:u", owner="organization:o", plan="team_6000", seats=2, status="active", starts_at=P1[0],
        ends_at=P1[1], stripe_customer="cus", stripe_subscription="sub",
    )  # fmt: skip
    book.at(utc(6, 20, 13))
    book.sweep()
    assert charged(book) == ["50.00"]
    assert_same((book.used("organization:o"), book.limit("organization:o")), (0, 67))
    assert dated(book, "organization:o")[0].billed == ZERO


def test_s79_free_paid_free() -> None:
    """The free period rests and goes on: 4.50 of 5."""
    book = audit(utc(6, 9))
    book.baseline("user:u", "3.00")
    use(book, "u", "1.50")
    book.at(utc(6, 10))
    subscribe(book, window=(utc(6, 10), utc(7, 10)))
    assert_same((book.used("user:u"), book.limit("user:u")), (0, 30))
    book.at(utc(6, 12))
    subscribe(book, window=(utc(6, 10), utc(7, 10)), status="canceled")
    assert_same((book.used("user:u"), book.limit("user:u")), (money("4.50"), 5))


def test_s83_purchases() -> None:
    """Bounds, once, and all of it spendable: limit 80."""
    book = audit()
    subscribe(book)
    for bad in ("9.99", "1000.01"):
        with pytest.raises(Refused):
            book.grant("user:u", bad, "p", "purchase")
    for _ in range(3):
        book.grant("user:u", "50", "p", "purchase")
    lump(book, "79.99")
    assert_same((book.balance("user:u"), book.limit("user:u"), book.check("u").allowed), (50, 80, True))


def test_s87_holds() -> None:
    """Three of 0.005 fit at 4.985, the fourth doesn't; a release frees; settling above the held amount counts."""
    book = audit()
    use(book, "u", "4.985")
    granted = [book.hold("u", "0.005", f"h{number}", 600).allowed for number in (1, 1, 2, 3, 4)]
    assert granted == [True, True, True, True, False]
    book.release("h1")
    book.release("h2")
    assert book.hold("u", "0.005", "h5", 600).allowed
    book.release("h5")
    assert book.settle("h3", "0.011", "workflow", "gpt-4o", "s3") == "settled"
    assert_same((book.used("user:u"), book.hold("u", "0.005", "h6", 600).code), (money("4.996"), "limit_reached"))


def test_s93_user_deletion() -> None:
    """What the organization was charged for stays."""
    book = audit()
    team(book, 3)
    book.add_member("o", "u")
    use(book, "u", "12.00")
    book.delete_user("u")
    assert figures(book, "organization:o").total == 12


# ------------------------------------------------------------------------------------------------- corrections of §3.7


def test_a_correction_of_a_closed_period_is_given_back() -> None:
    """Overage 50 charged; −20 gives 20.00 back; then more than is left of the overage gives the rest."""
    book = audit()
    subscribe(book)
    lump(book, "80.25", key="K")
    book.at(LATE)
    book.sweep()
    book.correct("K", "-20", "c1")
    assert_same((charged(book), book.balance("user:u")), (["50.00"], 20))
    book.correct("K", "-50", "c2")
    assert book.balance("user:u") == 50
    assert_same((figures(book).total, book.used("user:u"), book.broken_closes()), (-70, 0, []))


def test_a_correction_of_an_open_period_uses_the_surplus_first() -> None:
    """Billed 100 by the threshold; −60 and +10 later: at the close 50.00 is given back, not before."""
    book = audit()
    subscribe(book)
    lump(book, "130.25", key="K")
    book.sweep()
    book.correct("K", "-60", "c")
    lump(book, "10.00")
    assert book.balance("user:u") == 0
    book.at(LATE)
    book.sweep()
    assert_same((charged(book), book.balance("user:u"), book.broken_closes()), (["100.00"], 50, []))
