"""A charge of the outbox becomes exactly one invoice of its cents, whatever fails on the way (BEHAVIOUR §11, S85)."""

import asyncio
from datetime import timedelta

import pytest

import meterbook
from meterbook.book import Book
from meterbook.errors import LedgerUnavailable, UnknownDelivery
from meterbook.stripe.gateway import StripeAccount
from tests.bills import alerts
from tests.conftest import Clock
from tests.ledger import query
from tests.relay.shop import Shop
from tests.stripe_server.faults import Kind
from tests.stripe_server.server import StripeServer

STEPS = {
    "create": ("POST", "/v1/invoices"),
    "item": ("POST", "/v1/invoiceitems"),
    "finalize": ("POST", "/v1/invoices/*/finalize"),
    "pay": ("POST", "/v1/invoices/*/pay"),
    "look": ("GET", "/v1/invoices/*"),
}
FAULTS: list[Kind] = [
    "timeout_before",
    "timeout_after",
    "reset_before",
    "reset_after",
    "unavailable_503",
    "rate_limit_429",
    "lock_timeout_429",
    "conflict_409",
    "error_500_before",
    "error_500_after",
]


PAID = ("paid", 15_000, 15_000)


async def test_a_charge_becomes_one_paid_invoice(shop: Shop, book: Book) -> None:
    """Of its cents, for its customer, saying which charge it bills; the row tells what came of it."""
    customer = await shop.charge(dollars=150)
    relayed = await book.relay()
    assert (relayed.delivered, relayed.postponed, relayed.dead) == (1, 0, 0)
    (invoice,) = shop.stripe_server.things("invoice")
    assert (invoice["customer"], invoice["status"], invoice["amount_paid"]) == (customer, "paid", 15_000)
    assert invoice["description"] == "Usage beyond the plan, so far: 2026-06-01 to 2026-07-01"
    row = await shop.delivery()
    assert (row.state, row.attempts, row.note) == ("delivered", 1, f"{invoice['id']} is paid")
    assert (await book.relay()).delivered == 0


@pytest.mark.parametrize("step", STEPS)
async def test_one_invoice_whatever_fails(shop: Shop, step: str) -> None:
    """Each fault at a step, before and after its effect, once and thrice: one invoice, paid once."""
    for number, kind in enumerate(FAULTS):
        for times in (1, 3):
            customer = await shop.charge(f"u{number}.{times}", dollars=150)
            shop.stripe_server.fails(kind, *STEPS[step], times=times)
            row = await shop.until_settled()
            shop.stripe_server.script.clear()
            assert (kind, row.state, shop.invoices(customer)) == (kind, "delivered", [PAID])


async def test_one_invoice_if_every_call_fails_at_first(shop: Shop) -> None:
    """Each step fails twice before it gets through."""
    for number, kind in enumerate(FAULTS):
        customer = await shop.charge(f"u{number}", dollars=150)
        for step in STEPS.values():
            shop.stripe_server.fails(kind, *step, times=2)
        row = await shop.until_settled()
        shop.stripe_server.script.clear()
        assert (kind, row.state, shop.invoices(customer)) == (kind, "delivered", [PAID])


async def test_a_call_that_arrives_late_makes_no_second_invoice(shop: Shop, book: Book) -> None:
    """It is under way for longer than we wait; the same key finds it there."""
    await shop.charge(dollars=150)
    late = shop.stripe_server.fails("late", *STEPS["create"])
    await book.relay()
    shop.pass_time(timedelta(seconds=5))
    late.released.set()
    row = await shop.until_settled()
    assert (row.state, shop.invoices()) == ("delivered", [PAID])


@pytest.mark.parametrize(("step", "look"), [("create", "/v1/invoices"), ("item", "/v1/invoiceitems")])
async def test_a_look_that_fails_spends_no_key(shop: Shop, book: Book, step: str, look: str) -> None:
    """A step is under way and the look for it is answered by a server error: it is sent again under its own key, and so done once."""
    await shop.charge(dollars=150)
    late = shop.stripe_server.fails("late", *STEPS[step])
    shop.stripe_server.fails("error_500_before", "GET", look)
    for _ in range(3):
        await book.relay()
        shop.pass_time(timedelta(seconds=10))
    late.released.set()
    row = await shop.until_settled()
    assert (row.state, shop.invoices()) == ("delivered", [PAID])
    assert len({each.key for each in shop.stripe_server.requests if f":{step}:" in (each.key or "")}) == 1


@pytest.mark.parametrize("step", ["create", "item"])
async def test_a_key_that_stripe_has_forgotten_makes_no_second_one(shop: Shop, step: str) -> None:
    """For 30 hours nothing is answered, though it was done: then it is looked up. Sent again under its old key, it would be done again."""
    for number, kind in enumerate(("timeout_after", "reset_after", "error_500_after", "timeout_before")):
        customer = await shop.charge(f"u{number}", dollars=150)
        shop.stripe_server.fails(kind, *STEPS[step], times=None)  # type: ignore[arg-type]
        shop.stripe_server.fails("reset_before", "GET", times=None)
        with pytest.raises(AssertionError, match="still"):
            await shop.until_settled(patience=timedelta(hours=30))
        shop.stripe_server.script.clear()
        row = await shop.until_settled()
        assert (kind, row.state, shop.invoices(customer)) == (kind, "delivered", [PAID])


async def test_s85_six_hours_without_stripe(shop: Shop, book: Book) -> None:
    """S85: retries after 2, 4, 8, … s, capped at an hour; money survives a 6-hour outage and then delivers exactly one invoice."""
    await shop.charge(dollars=150)
    outage = shop.stripe_server.fails("reset_before", times=None)
    began, waits = shop.clock.now, []
    while shop.clock.now - began < timedelta(hours=6):
        await book.relay()
        waits.append((await shop.delivery()).due_at - shop.clock.now)
        shop.pass_time(waits[-1])
    assert all(2 ** (n + 1) <= wait.total_seconds() <= 2 ** (n + 1) * 1.25 for n, wait in enumerate(waits[:11])), waits
    assert max(waits) == timedelta(hours=1)
    shop.stripe_server.script.remove(outage)
    row = await shop.until_settled()
    assert (row.state, shop.invoices()) == ("delivered", [PAID])


async def test_s85_money_is_given_up_after_three_days_and_told_and_sent_again(shop: Shop, book: Book) -> None:
    """Dead letter and alert; a redrive goes on where it stopped."""
    await shop.charge(dollars=150)
    outage = shop.stripe_server.fails("error_500_before", *STEPS["item"], times=None)
    began = shop.clock.now
    row = await shop.until_settled()
    assert row.state == "dead"
    assert timedelta(days=3) <= shop.clock.now - began <= timedelta(days=3, hours=1)
    assert (await alerts(book, "user:u"))[-1] == "dead_letter"
    assert not await book.redrive((await shop.delivery("alert")).id)
    shop.stripe_server.script.remove(outage)
    assert await book.redrive(row.id)
    assert (await shop.until_settled()).state == "delivered"
    assert shop.invoices() == [PAID]
    with pytest.raises(UnknownDelivery):
        await book.redrive(10**9)


async def test_a_declined_card_is_an_answer(shop: Shop) -> None:
    """The invoice is open at Stripe, which dunns; nothing is sent again from here."""
    customer = await shop.charge(dollars=150)
    shop.stripe_server.decline(customer)
    row = await shop.until_settled()
    assert row.state == "delivered"
    assert "is open: " in (row.note or "")
    assert shop.invoices() == [("open", 15_000, 0)]


async def test_an_invoice_that_somebody_changed_is_not_paid(shop: Shop) -> None:
    """Its cents are not the charge's: nobody is asked, the row is given up and says why."""
    customer = await shop.charge(dollars=150)
    shop.stripe_server.fails("error_500_before", *STEPS["finalize"])
    await shop.book.relay()
    (invoice,) = shop.stripe_server.things("invoice")
    shop.stripe_server.client().v1.invoice_items.create(
        {"customer": customer, "invoice": invoice["id"], "amount": 1, "currency": "usd"}
    )
    row = await shop.until_settled()
    assert (row.state, shop.invoices()) == ("dead", [("draft", 15_001, 0)])
    assert "asks 15001 cents USD where 15000 USD are charged" in (row.note or "")


async def test_an_invoice_voided_by_a_person_stays_void(shop: Shop) -> None:
    """Somebody decided at Stripe that it is not asked for: no second one is made."""
    await shop.charge(dollars=150)
    shop.stripe_server.fails("error_500_before", *STEPS["pay"])
    await shop.book.relay()
    (invoice,) = shop.stripe_server.things("invoice")
    shop.stripe_server.client().v1.invoices.void_invoice(invoice["id"])
    row = await shop.until_settled()
    assert (row.state, row.note) == ("delivered", f"{invoice['id']} is void")
    assert shop.invoices() == [("void", 15_000, 0)]


# ------------------------------------------------------------------------------------------------------------------- relays


async def test_s85_two_relays_deliver_each_row_once(
    shop: Shop, book: Book, database_url: str, clock: Clock, account: StripeAccount
) -> None:
    """S85: five charges, two relays at once, one invoice each."""
    for number in range(5):
        await shop.charge(f"u{number}", 110 + number)
    async with meterbook.open(database_url, clock=clock, stripe=account) as other:
        done = await asyncio.gather(book.relay(), other.relay())
    assert sum(each.delivered for each in done) == 5
    assert sorted(cents for _, _, cents in shop.invoices()) == [11_000, 11_100, 11_200, 11_300, 11_400]


@pytest.mark.parametrize("step", ["create", "item", "finalize", "pay"])
async def test_s85_a_worker_silent_for_ten_minutes_is_reclaimed(
    shop: Shop, book: Book, database_url: str, clock: Clock, stripe_server: StripeServer, step: str
) -> None:
    """S85: its late completion changes nothing; one invoice, paid once."""
    await shop.charge(dollars=150)
    held = stripe_server.fails("late", *STEPS[step])
    slow = StripeAccount("sk_test_meterbook", api_base=stripe_server.url, timeout_s=30)
    async with meterbook.open(database_url, clock=clock, stripe=slow) as silent:
        silence = asyncio.create_task(silent.relay())
        await asyncio.to_thread(held.arrived.wait, 10)
        assert (await book.relay()).delivered == 0
        shop.pass_time(timedelta(minutes=10))
        delivered = 0
        while (row := await shop.delivery()).state != "delivered":
            delivered += (await book.relay()).delivered
            shop.pass_time(timedelta(minutes=1))
            if row.attempts > 2:
                held.released.set()  # until then Stripe refuses a second call under the key
        held.released.set()
        assert delivered + (await silence).delivered == 1
    assert shop.invoices() == [PAID]
    assert (await shop.delivery()).state == "delivered"


async def test_s85_an_unknown_kind_is_a_dead_letter(shop: Shop, book: Book, database_url: str) -> None:
    """S85: what a newer version wrote is not lost: dead letter and alert."""
    await shop.charge(dollars=150)
    query(
        database_url,
        "insert into meterbook.outbox (entity_id, kind, dedupe_key, payload, created_at) "
        "select entity_id, 'fax', 'fax:1', '{}', created_at from meterbook.outbox limit 1 returning id",
    )
    relayed = await book.relay()
    assert (relayed.delivered, relayed.dead) == (1, 1)
    assert (await shop.delivery("fax")).state == "dead"
    assert "dead_letter" in await alerts(book, "user:u")


OPEN_TRANSACTIONS = """
select state, query from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and xact_start is not null and backend_type = 'client backend'
"""


@pytest.mark.parametrize("step", STEPS)
async def test_nothing_calls_stripe_inside_a_transaction(
    shop: Shop, database_url: str, clock: Clock, stripe_server: StripeServer, step: str
) -> None:
    """While a call is under way no session of the ledger has a transaction open, and nobody holds a lock."""
    await shop.charge(dollars=150)
    held = stripe_server.fails("late", *STEPS[step])
    patient = StripeAccount("sk_test_meterbook", api_base=stripe_server.url, timeout_s=30)
    async with meterbook.open(database_url, clock=clock, stripe=patient) as book:
        relaying = asyncio.create_task(book.relay())
        assert await asyncio.to_thread(held.arrived.wait, 10)
        assert query(database_url, OPEN_TRANSACTIONS) == []
        held.released.set()
        assert (await relaying).delivered == 1
    assert shop.invoices() == [PAID]


async def test_without_an_account_what_is_stripes_stays_due(shop: Shop, database_url: str, clock: Clock) -> None:
    """And alerts wait for somebody to tell."""
    await shop.charge(dollars=150)
    async with meterbook.open(database_url, clock=clock) as book:
        assert (await book.relay()).delivered == 0
    assert (await shop.delivery()).state == "due"


async def test_alerts_are_told_once(shop: Shop, book: Book) -> None:
    """A crossed limit, to whoever the relay tells."""
    await shop.charge(dollars=150)
    await book.sweep()
    told: list[str] = []

    async def tell(alert: object) -> None:
        told.append(alert.payload["alert"])  # type: ignore[attr-defined]

    await book.relay(tell=tell)
    await book.relay(tell=tell)
    assert told == ["limit_100"]


async def test_a_ledger_that_goes_away_between_two_steps_makes_no_second_invoice(
    shop: Shop, database_url: str, clock: Clock, account: StripeAccount
) -> None:
    """S60: the process dies after each statement in turn, with what came of the call before it: the next one finds what was made."""
    for step in range(1, 6):
        await shop.charge(f"u{step}", 100 + step)
        async with meterbook.open(database_url, clock=clock, stripe=account) as dying:
            await _die_before_statement(dying, step)
        shop.pass_time(timedelta(minutes=11))
        await shop.until_settled()
    assert sorted(shop.invoices()) == [("paid", cents, cents) for cents in range(10_100, 10_600, 100)]


class _Gone(LedgerUnavailable):
    """The connection to the ledger is lost."""


async def _die_before_statement(book: Book, number: int) -> None:
    """A relay whose n-th connection is refused: the first claims, the others note each step that begins, the last one completes."""
    pool, asked = book._pool, 0
    real = pool.connection

    def connection(timeout: float | None = None) -> object:
        nonlocal asked
        asked += 1
        if asked > number:
            raise _Gone
        return real(timeout)

    pool.connection = connection  # type: ignore[method-assign,assignment]
    try:
        with pytest.raises(_Gone):
            await book.relay()
    finally:
        pool.connection = real  # type: ignore[method-assign]


async def test_a_draft_that_was_deleted_at_stripe_is_made_again_when_told_so(shop: Shop, book: Book) -> None:
    """Dead letter; a plain redrive dies again, since another account's key would look the same; told that it is gone, one new invoice."""
    await shop.charge(dollars=150)
    shop.stripe_server.fails("reset_before", *STEPS["item"])
    await book.relay()
    (draft,) = shop.stripe_server.things("invoice")
    shop.stripe_server.client().v1.invoices.delete(draft["id"])
    row = await shop.until_settled()
    assert row.state == "dead"
    assert await book.redrive(row.id)
    assert (await shop.until_settled()).state == "dead"
    assert await book.redrive(row.id, invoice_is_gone=True)
    assert ((await shop.until_settled()).state, shop.invoices()) == ("delivered", [PAID])
