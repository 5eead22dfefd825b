"""The promised calls: names, arguments, answers and errors of the Python face."""

import asyncio
import inspect
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from psycopg.conninfo import make_conninfo

import meterbook
import meterbook.sync.book
from meterbook import Book
from meterbook.book.book import CONNECT_TIMEOUT_S
from meterbook.errors import InvalidUsage, LedgerUnavailable, MeterbookError, WrongLedger
from tests.ledger import amounts, count, holding, sums, use

PROMISED = {
    "record": "actor source description amount event_key category line entity period workspace workflow execution "
    "source_reference occurred_at metadata attribution conn",
    "record_many": "entries conn",
    "record_cumulative": "actor request total source description",
    "correct": "entry amount reason event_key",
    "usage": "entity period",
    "entries": "entity source actor workspace start end limit cursor",
    "periods": "entity",
    "explain": "entity period",
    "verify": "entity",
    "rebuild": "entity",
    "compact": "",
    "resolve": "actor workspace",
    "put_subscription": "id owner plan seats status starts_at ends_at interval stripe_customer stripe_subscription anchor "
    "cancel_at_period_end effective_at currency",
    "put_organization": "organization owner",
    "transfer_ownership": "organization user",
    "add_member": "organization user role",
    "remove_member": "organization user",
    "put_workspace": "workspace payer",
}


@pytest.mark.parametrize("call", PROMISED)
def test_promised_names_are_there_in_both_twins(call: str) -> None:
    """Every promised argument by its name; the synchronous twin has the same signature, without await."""
    said = inspect.signature(getattr(Book, call)).parameters
    assert set(PROMISED[call].split()) <= said.keys()
    twin = getattr(meterbook.sync.book.Book, call)
    assert list(inspect.signature(twin).parameters) == list(said)
    assert inspect.iscoroutinefunction(getattr(Book, call))
    assert not inspect.iscoroutinefunction(twin)


async def test_a_reply_says_what_became_of_the_call(book: Book) -> None:
    """Inserted, replayed, the amount inserted, and each entry in the call's order; frozen."""
    line = {"actor": "u", "source": "s", "description": "m"}
    await book.record_many([line | {"amount": "5", "event_key": "k5"}])
    reply = await book.record_many([line | {"amount": str(n), "event_key": f"k{n}"} for n in (5, 3, 8, 1)][::-1])
    assert (reply.inserted, reply.replayed) == (3, 1)
    assert [(entry.outcome, entry.amount) for entry in reply.entries] == [
        ("inserted", Decimal(1)),
        ("inserted", Decimal(8)),
        ("inserted", Decimal(3)),
        ("replayed", Decimal(5)),
    ]
    assert reply.amount == 12
    with pytest.raises(AttributeError):
        reply.amount = Decimal(0)  # type: ignore[misc]


async def test_callers_who_share_a_commit_get_their_own_answers(book: Book, database_url: str) -> None:
    """Two hundred at once: each its own amount and id; the guilty among them their own refusal, the innocent nothing of it."""
    await use(book, "u", "500", "taken")

    async def call(n: int) -> None:
        if n % 20 == 0:
            with pytest.raises(MeterbookError):
                await use(book, "u", "1", "taken")
            with pytest.raises(InvalidUsage):
                await use(book, "u", "1", f"w{n}", workspace="nowhere")
        reply = await use(book, "u", f"0.{n + 1:03}", f"k{n}")
        assert [entry.amount for entry in reply.entries] == [reply.amount] == [Decimal(f"0.{n + 1:03}")]

    await asyncio.gather(*map(call, range(200)))
    assert sums(database_url) == {"user:u": Decimal("520.1")}
    assert count(database_url) == 201


async def test_nothing_recorded_is_nothing_written(book: Book, database_url: str) -> None:
    """An empty call, and one of zeros only."""
    for entries in ([], [{"actor": "u", "source": "s", "description": "m", "amount": 0, "event_key": "k"}]):
        reply = await book.record_many(entries)
        assert (reply.inserted, reply.replayed, reply.entries) == (0, 0, ())
    assert amounts(database_url) == []


async def test_bad_input_of_any_kind_writes_nothing(book: Book, database_url: str) -> None:
    """The good entry beside the bad one neither; tests/core/test_entries.py has the table."""
    good: dict[str, Any] = {"actor": "u", "source": "s", "description": "m", "amount": "1", "event_key": "k"}
    bad: list[dict[str, Any]] = [
        *({"amount": amount} for amount in (0.5, True, "NaN", "-1", "0.0000000000001", 10**12, Decimal("1E+9999999"))),
        *({"event_key": key} for key in ("", "x" * 10_240, "\0", "\ud800", 7)),
        {"entity": "team:u"},
        {"category": "gpu"},
        {"colour": "red"},
        {"metadata": {"a": "x" * 4096}},
        {"metadata": {"a": {"b": {"c": {"d": {}}}}}},
        {"occurred_at": "now"},
        {"period": 2**63},
    ]
    for wrong in bad:
        with pytest.raises(InvalidUsage) as refused:
            await book.record_many([good, good | wrong])
        assert [problem.index for problem in refused.value.problems] == [1]
    assert count(database_url) == count(database_url, "event_key") == count(database_url, "actor") == 0


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
async def test_another_default_isolation_of_the_server_changes_nothing(database_url: str, isolation: str) -> None:
    """A database or role may have any: folding goes on, and eight at once with one key are told apart, none has to try again."""
    escaped = isolation.replace(" ", r"\ ")
    url = make_conninfo(database_url, options=f"-c default_transaction_isolation={escaped}")
    async with meterbook.open(url) as book:
        replies = await asyncio.gather(
            *(book.record_cumulative("u", request="r", total=n, source="s", description="m") for n in range(1, 9))
        )
        assert sum(reply.amount for reply in replies) == 8
        assert (await book.compact()).deltas > 0
        await book.sweep()
        assert await book.verify() == []
    assert (sums(database_url), count(database_url, "usage_delta")) == ({"user:u": Decimal(8)}, 0)


async def test_a_ledger_that_is_not_there_is_said_so(empty_database_url: str) -> None:
    """Not migrated, or nobody answers: what to do, and whether to try again."""
    with pytest.raises(LedgerUnavailable, match="meterbook migrate"):
        async with meterbook.open(empty_database_url):
            pass


async def test_a_url_that_no_waiting_mends_is_said_at_once(database_url: str) -> None:
    """Refused, unknown host, unknown user, missing database: the server's words and what to do, not a pool's timeout."""
    parts = urlsplit(database_url)
    host = parts.netloc.rpartition("@")[2]
    for wrong, advice in [
        ("postgresql://127.0.0.1:1/nothing", "does the server run"),
        ("postgresql://nowhere.invalid/nothing", "host of the URL"),
        (urlunsplit(parts._replace(netloc=f"nobody_there@{host}")), "user"),
        (urlunsplit(parts._replace(path="/no_such_database")), "database of the URL"),
    ]:
        began = time.monotonic()
        with pytest.raises(LedgerUnavailable, match=advice):
            async with meterbook.open(wrong):
                pass
        assert time.monotonic() - began < CONNECT_TIMEOUT_S / 2


async def test_a_catalog_of_another_ledger_is_refused(database_url: str, tmp_path: Path) -> None:
    """Another currency, or another kind of free period: neither can change later."""
    said = (Path(meterbook.__file__).parent / "catalogs" / "origin.toml").read_text()
    for name, other in (
        ('free_period = "lifetime"', 'free_period = "calendar"'),
        ('currency = "USD"', 'currency = "EUR"'),
    ):
        assert name in said
        catalog = tmp_path / "catalog.toml"
        catalog.write_text(said.replace(name, other))
        with pytest.raises(WrongLedger):
            async with meterbook.open(database_url, catalog=catalog):
                pass


async def test_every_connection_busy_is_a_retryable_error(database_url: str, clock: Any) -> None:
    """Not an error of the driver."""
    async with meterbook.open(database_url, clock=clock, connections_max=1) as book:
        await use(book, "u", "1", "K")
        book._pool.timeout = 0.3
        async with holding(database_url, "lock table meterbook.actor in access exclusive mode"):
            slow = asyncio.create_task(book.usage("user:stranger"))
            await asyncio.sleep(0.1)
            with pytest.raises(LedgerUnavailable) as refused:
                await book.usage("user:u")
        assert refused.value.retryable
        await slow


def test_the_synchronous_twin_does_the_same(database_url: str, clock: Any) -> None:
    """From many threads: exactly once, each its own answer."""
    with meterbook.sync.open(database_url, clock=clock) as book:

        def call(n: int) -> Decimal:
            return book.record(
                "u", source="s", description="m", amount=f"0.{n % 30 + 1:02}", event_key=f"k{n % 30}"
            ).amount

        with ThreadPoolExecutor(12) as threads:
            inserted = list(threads.map(call, range(90)))
        assert sum(inserted) == book.usage("user:u").total == Decimal("4.65")
        assert book.verify() == []
