"""Section 11: what webhooks do. S72, S74, S81, S83, S84 by real events, in real signatures."""

# mypy: disable-error-code="comparison-overlap"
# An amount is compared with the plain number of the text: Decimal(30) == 30.

from decimal import Decimal

import pytest

from meterbook import Book
from meterbook.errors import AttributionUnavailable, InvalidUsage, UnknownEntity
from tests.bills import alerts, balance, charged, check_books, invoices, lump, state_of
from tests.conftest import Clock
from tests.ledger import P1, P2, query, total, utc, windows
from tests.stripe.hooks import Subscription, deliver, event, invoice, line

START = utc(2026, 6, 1)


async def test_s72_deletion(book: Book, clock: Clock, database_url: str) -> None:
    """Overage 70.00, credits 20.00, deleted mid-period → 5 000 cents, credits 0; event delivered twice → once. Limit back to 5."""
    sub = Subscription("sub_u", "user:u")
    await deliver(book, sub.event("created", START))
    await lump(book, "u", "100.25")
    await book.grant_credit("user:u", amount="20.00", grant_id="g")
    clock.now = utc(2026, 6, 20, 12)
    deleted = sub.event("deleted", utc(2026, 6, 20, 11), status="canceled", ended_at=utc(2026, 6, 20, 11))
    first, again = await deliver(book, deleted, deleted)
    assert (first.state, first.replayed, again.replayed) == ("applied", False, True)
    assert windows(database_url, "user:u") == [(START, utc(2026, 6, 20, 11))]
    assert (await book.usage("user:u")).limit == 5
    clock.now = utc(2026, 6, 20, 13)
    await book.sweep()
    assert await charged(book, "user:u") == await invoices(book) == [5_000]
    assert await balance(book, "user:u") == 0
    await check_books(book, database_url)


async def test_s63_the_renewals_invoice_makes_the_closer_look(book: Book, clock: Clock, database_url: str) -> None:
    """P1 billed by its own figures, though the invoice's own period is P1 and its line's P2; P2 starts where the line says."""
    sub = Subscription("sub_u", "user:u")
    await deliver(book, sub.event("created", START))
    await lump(book, "u", "145.25")
    clock.now = utc(2026, 7, 1, 2)
    sub.window = P2
    (applied,) = await deliver(book, event("invoice.finalized", invoice("in_1", sub, "open"), P2[0]))
    assert (applied.state, await state_of(book, "user:u")) == ("applied", "closed")
    assert await charged(book, "user:u") == [11_500]
    assert windows(database_url, "user:u") == [P1, P2]
    await check_books(book, database_url)


async def test_s74_bookkeeping_is_idempotent(book: Book, clock: Clock, database_url: str) -> None:
    """A replayed "subscription created" leaves P2's billed untouched, and a new event that says the same too."""
    sub = Subscription("sub_u", "user:u")
    created = sub.event("created", START)
    await deliver(book, created)
    clock.now = utc(2026, 7, 1, 2)
    await lump(book, "u", "130.25", window=P2)
    await book.sweep()
    renewed = sub.event("updated", P2[0], window=P2)
    await deliver(book, renewed, created, renewed, sub.event("updated", utc(2026, 7, 1, 1)))
    assert (await book.usage("user:u")).billed_cents == 10_000
    assert windows(database_url, "user:u") == [P1, P2]
    await check_books(book, database_url)


async def acme(book: Book) -> Subscription:
    """An organization with four members."""
    await book.put_organization("acme", owner="boss")
    for member in ("ada", "bo", "cy"):
        await book.add_member("acme", member)
    sub = Subscription("sub_acme", "organization:acme", "team_6000", seats=4)
    await deliver(book, sub.event("created", START))
    return sub


async def test_s81_payments(book: Book, database_url: str) -> None:
    """Failed → all 4 members denied, one notification; attempt 2 adds none; another's success unblocks nothing; paid → unblocked; once."""
    sub = await acme(book)

    async def codes() -> set[str]:
        return {(await book.check(member)).code for member in ("boss", "ada", "bo", "cy")}

    at = utc(2026, 6, 20, 1)
    await deliver(book, event("invoice.payment_failed", invoice("in_1", sub, "open"), at))
    assert await codes() == {"payment_failed"}
    await deliver(book, event("invoice.payment_failed", invoice("in_1", sub, "open"), utc(2026, 6, 20, 2)))
    assert await alerts(book, "organization:acme") == ["payment_failed"]
    await deliver(book, event("invoice.paid", invoice("in_2", sub), utc(2026, 6, 20, 3)))
    assert not (await book.check("ada")).allowed
    paid = event("invoice.payment_succeeded", invoice("in_1", sub), utc(2026, 6, 20, 4))
    await deliver(book, paid, paid, event("invoice.paid", invoice("in_1", sub), utc(2026, 6, 20, 4)))
    assert (await book.check("ada")).allowed
    assert query(database_url, "select count(*) from meterbook.entity_block") == [(0,)]
    assert await alerts(book, "organization:acme") == ["payment_failed"]


@pytest.mark.parametrize(
    ("kind", "status"), [("invoice.voided", "void"), ("invoice.marked_uncollectible", "uncollectible")]
)
async def test_s81_voided_or_forgiven_unblocks(book: Book, kind: str, status: str) -> None:
    """A failing overage invoice of ours blocks just the same, until it is voided or marked uncollectible."""
    sub = await acme(book)
    ours = {"parent": None, "metadata": {"meterbook_charge": "x:1:1", "meterbook_subscription": sub.id}}
    failed = event("invoice.payment_failed", invoice("in_1", sub, "open", **ours), utc(2026, 6, 20, 1))
    await deliver(book, failed)
    assert not (await book.check("ada")).allowed
    await deliver(book, event(kind, invoice("in_1", sub, status, **ours), utc(2026, 6, 20, 2)))
    assert (await book.check("ada")).allowed


async def test_a_payment_that_arrives_before_its_failure_leaves_unblocked(book: Book) -> None:
    """Paid first, failed afterwards: settled is settled, whatever the order of arrival."""
    sub = await acme(book)
    await deliver(book, event("invoice.paid", invoice("in_1", sub), utc(2026, 6, 20, 2)))
    await deliver(book, event("invoice.payment_failed", invoice("in_1", sub, "open"), utc(2026, 6, 20, 1)))
    assert (await book.check("ada")).allowed
    assert await alerts(book, "organization:acme") == []


async def test_unblocking_never_touches_what_was_billed(book: Book, database_url: str) -> None:
    """Billed 100.00 before the block and after it."""
    sub = await acme(book)
    await lump(book, "ada", "221.00")
    await book.sweep()
    await deliver(book, event("invoice.payment_failed", invoice("in_1", sub, "open"), utc(2026, 6, 20, 1)))
    await deliver(book, event("invoice.paid", invoice("in_1", sub), utc(2026, 6, 20, 2)))
    assert (await book.usage("organization:acme")).billed_cents == 10_000
    await check_books(book, database_url)


def purchase(invoice_id: str, amount: str, owner: str, **more: object) -> dict[str, object]:
    metadata = {"type": "credit_purchase", "amount": amount, "billing_entity": owner}
    return invoice(invoice_id, None, "paid", metadata=metadata, **more)


@pytest.mark.parametrize("amount", ["9.99", "1000.01"])
async def test_s83_purchases_have_bounds(book: Book, amount: str) -> None:
    """$9.99 and $1 000.01 refused, kept as failed; no credit."""
    with pytest.raises(InvalidUsage):
        await deliver(book, event("invoice.paid", purchase("in_1", amount, "user:u"), START, "evt_bad"))
    assert [each.id for each in await book.stripe_events(state="failed")] == ["evt_bad"]
    assert await balance(book, "user:u") == 0


async def test_s83_credit_purchase(book: Book) -> None:
    """$50 on pro_6000 (limit 30): paid webhook ×3 → balance 50, limit 80; at usage 79.99 the person is allowed."""
    await deliver(book, Subscription("sub_u", "user:u").event("created", START))
    paid = event("invoice.payment_succeeded", purchase("in_1", "50", "user:u"), START)
    await deliver(book, paid, paid, event("invoice.paid", purchase("in_1", "50", "user:u"), START))
    assert (await balance(book, "user:u"), (await book.usage("user:u")).limit) == (5_000, 80)
    await lump(book, "u", "79.99")
    assert (await book.check("u")).allowed


@pytest.mark.parametrize(("amount", "cents"), [("10", 1_000), ("10.00", 1_000), ("1000", 100_000)])
async def test_s83_purchases_at_the_bounds(book: Book, amount: str, cents: int) -> None:
    """$10 and $1 000 accepted."""
    await deliver(book, event("invoice.paid", purchase("in_1", amount, "user:u"), START))
    assert await balance(book, "user:u") == cents


async def test_s83_custom_limit_and_seats(book: Book) -> None:
    """Custom limit 200 → stays 200. team_6000 × 4: limit 170 (120 included + 50)."""
    await acme(book)
    await deliver(book, event("invoice.paid", purchase("in_1", "50", "organization:acme"), START))
    assert (await book.usage("organization:acme")).limit == 170
    await deliver(book, Subscription("sub_u", "user:u").event("created", START))
    await book.set_limit("user:u", "200")
    await deliver(book, event("invoice.paid", purchase("in_2", "50", "user:u"), START))
    assert (await book.usage("user:u")).limit == 200


async def test_a_purchase_in_another_currency_is_refused(book: Book) -> None:
    """50 euros are not 50 dollars: an error that waits."""
    with pytest.raises(InvalidUsage):
        await deliver(book, event("invoice.paid", purchase("in_1", "50", "user:u", currency="eur"), START))
    assert await balance(book, "user:u") == 0


def contract(owner: str | None, **metadata: str) -> Subscription:
    said = {"plan": "enterprise", "seats": "25", "monthlyPrice": "1500", **metadata}
    return Subscription("sub_e", owner, "custom_of_acme", metadata=said)


async def test_s84_enterprise_created(book: Book, database_url: str) -> None:
    """Plan enterprise, seats 25, org limit 1500.00; replay → one subscription row; usage 1 600 → exceeded, overage 0, no invoice ever."""
    await book.put_organization("acme", owner="boss")
    created = contract(None, referenceId="acme").event("created", START)
    await deliver(book, created, created)
    rows = query(database_url, "select plan, seats from meterbook.subscription")
    assert rows == [("enterprise", 25)]
    assert (await book.usage("organization:acme")).limit == 1500
    await lump(book, "boss", "1600")
    await book.sweep()
    usage = await book.usage("organization:acme")
    assert (usage.status, usage.overage, await invoices(book)) == ("exceeded", 0, [])


async def test_s84_without_an_owner_stripe_has_to_retry(book: Book, database_url: str) -> None:
    """Missing referenceId → error, kept as failed with the reason; the same event again, once it can be told, is applied."""
    said = Subscription("sub_u", None).event("created", START, "evt_1")
    with pytest.raises(AttributionUnavailable, match="billing_entity"):
        await deliver(book, said)
    (kept,) = await book.stripe_events()
    assert (kept.state, kept.attempts, "billing_entity" in str(kept.note)) == ("failed", 1, True)
    assert query(database_url, "select count(*) from meterbook.subscription") == [(0,)]
    at = START
    await book.put_subscription(
        id="own", owner="user:u", plan="pro", status="active", starts_at=at, ends_at=P1[1], stripe_subscription="sub_u"
    )
    applied = await book.replay_stripe_event("evt_1")
    assert (applied.state, applied.replayed) == ("applied", False)
    assert query(database_url, "select id, plan from meterbook.subscription") == [("own", "pro_6000")]


async def test_s84_operators_limit_is_not_undone_by_the_same_price_said_again(book: Book) -> None:
    """monthlyPrice is stored when it changes; what an operator stored since stays until then."""
    await book.put_organization("acme", owner="boss")
    sub = contract("organization:acme")
    await deliver(book, sub.event("created", START))
    await book.set_limit("organization:acme", "2000")
    await deliver(book, sub.event("updated", utc(2026, 6, 10), cancel_at_period_end=True))
    assert (await book.usage("organization:acme")).limit == 2000
    sub.metadata = {**sub.metadata, "monthlyPrice": "1800.005"}
    await deliver(book, sub.event("updated", utc(2026, 6, 11)))
    assert (await book.usage("organization:acme")).limit == Decimal("1800.01")


async def test_a_prorated_decrease_is_told(book: Book) -> None:
    """Stripe gave 12.50 back in the middle of the period: an alert, once; the allowance stays what it was."""
    sub = await acme(book)
    less = sub.event("updated", utc(2026, 6, 15), seats=2)
    back = [line("il_1", sub, P1, -2500, proration=True), line("il_2", sub, P1, 1250, proration=True)]
    said = invoice("in_1", sub, "open", billing_reason="subscription_update", lines={"data": back})
    finalized = event("invoice.finalized", said, utc(2026, 6, 15))
    await deliver(book, less, finalized, finalized)
    assert await alerts(book, "organization:acme") == ["decrease_prorated"]
    assert (await book.usage("organization:acme")).included == 120


async def test_an_organization_that_is_not_known_is_waited_for(book: Book) -> None:
    """The error waits; when the organization is known, the replay of all that failed applies it."""
    with pytest.raises(UnknownEntity):
        await deliver(book, Subscription("sub_o", "organization:later", "team_6000").event("created", START))
    await book.put_organization("later", owner="boss")
    (applied,) = await book.replay_stripe_events()
    assert applied.state == "applied"
    assert (await book.check("boss")).entity == "organization:later"
    assert await total(book, "organization:later") == 0


async def test_s71_re_anchored_period(book: Book, clock: Clock, database_url: str) -> None:
    """8.00 on days 0 to 9; 06-11 to annual: the truncated period closes with refresh 2.50 → 4 750 cents; the new one: nothing billed."""
    sub = Subscription("sub_u", "user:u")
    await deliver(book, sub.event("created", START))
    for day in range(10):
        await lump(book, "u", "8.00", day)
    year = (utc(2026, 6, 11), utc(2027, 6, 11))
    clock.now = utc(2026, 6, 11, 2)
    await deliver(book, sub.event("updated", year[0], window=year, anchor=year[0], interval="year"))
    await book.sweep()
    assert await charged(book, "user:u") == [4_750]
    assert windows(database_url, "user:u") == [(START, year[0]), (year[0], utc(2026, 7, 11))]
    usage = await book.usage("user:u")
    assert (usage.total, usage.billed_cents) == (0, 0)
    await check_books(book, database_url)


async def test_s78_pro_to_team_conversion(book: Book, clock: Clock, database_url: str) -> None:
    """Overage 50.00 in P1, converted to team_6000 × 2 → the personal segment closes with 5 000 cents; the organization: 0 of 60."""
    sub = Subscription("sub_u", "user:u")
    await deliver(book, sub.event("created", START))
    await lump(book, "u", "80.25")
    await book.put_organization("acme", owner="u")
    clock.now = utc(2026, 6, 20, 14)
    at = utc(2026, 6, 20, 12)
    await deliver(book, sub.event("updated", at, owner="organization:acme", plan="team_6000", seats=2))
    await book.sweep()
    assert await charged(book, "user:u") == await invoices(book) == [5_000]
    usage = await book.usage("organization:acme")
    assert (usage.total, usage.limit, usage.billed_cents) == (0, 60, 0)
    await check_books(book, database_url)


async def test_s79_free_paid_free(book: Book, clock: Clock) -> None:
    """1.50 free, then pro_6000: usage 0 of 30; canceled → free again, with what was used of it."""
    await lump(book, "u", "1.50")
    sub = Subscription("sub_u", "user:u", window=(utc(2026, 6, 20, 12), utc(2026, 7, 20, 12)))
    clock.now = utc(2026, 6, 20, 12, 1)
    await deliver(book, sub.event("created", utc(2026, 6, 20, 12)))
    assert ((await book.usage("user:u")).total, (await book.usage("user:u")).limit) == (0, 30)
    clock.now = utc(2026, 6, 21)
    await deliver(book, sub.event("deleted", clock.now, status="canceled", ended_at=clock.now))
    usage = await book.usage("user:u")
    assert (usage.total, usage.limit) == (Decimal("1.50"), 5)


async def test_s68_ids_that_stripe_tells_let_a_deferred_close_go_on(
    book: Book, clock: Clock, database_url: str
) -> None:
    """Overage 115 and no customer id: deferred; the subscription's event brings it, and the close follows by itself."""
    await book.put_subscription(
        id="own",
        owner="user:u",
        plan="pro_6000",
        status="active",
        starts_at=P1[0],
        ends_at=P1[1],
        stripe_subscription="sub_u",
    )
    await lump(book, "u", "145.25")
    clock.now = utc(2026, 7, 1, 2)
    await book.sweep()
    assert (await state_of(book, "user:u"), await invoices(book)) == ("closing", [])
    sub = Subscription("sub_u", "user:u", window=P2)
    await deliver(book, sub.event("updated", P2[0]), event("invoice.finalized", invoice("in_1", sub, "open"), P2[0]))
    assert (await state_of(book, "user:u"), await invoices(book)) == ("closed", [11_500])
    await check_books(book, database_url)
