"""How long a page of the console takes, to its last byte, on a ledger of millions of entries: `meterbook serve` in a process of its own.

Two thousand users, of which few use much: some in organizations on a plan, some on a plan of their own, the others free. The pages
of one payer are those of the largest. METERBOOK_BENCH_CONSOLE_ENTRIES for another size than five million.
"""

import os
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from time import perf_counter

import httpx
import psycopg

import meterbook
from benchmarks.measuring import Figure, quantile, take_turns
from benchmarks.options import Options
from benchmarks.server import BUILD, Server
from meterbook.core.entries import Usage
from meterbook.postgres.statements import statements_beside
from tests.http.serving import Served, serving

SQL = statements_beside(__file__)
ENTRIES = int(os.environ.get("METERBOOK_BENCH_CONSOLE_ENTRIES", "5000000"))
ENTRIES_QUICK = 20_000
USERS, ORGANIZATIONS, MEMBERS, SUBSCRIBERS = 2_000, 100, 5, 500
ENTRIES_PER_STATEMENT = 10_000
FOLD_EVERY = 50
READS, READS_QUICK = 50, 5
WARM_READS = 3
PAYER = "organization:org_0"
_LINK = re.compile(r'aria-label="The link">([^<]+)<')
_CSRF = re.compile(r'name="csrf" value="([0-9a-f]+)"')
_OLDER = re.compile(r'href="([^"]+cursor=[^"]+)"')


async def measure(server: Server, options: Options) -> list[Figure]:
    entries = ENTRIES_QUICK if options.quick else ENTRIES
    url = server.database("console")
    await build(url, entries)
    folder = BUILD / "console"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with serving(url, folder, access_log="false") as served:
        return await measure_pages(served, entries, options)


async def measure_pages(served: Served, entries: int, options: Options) -> list[Figure]:
    async with httpx.AsyncClient(base_url=served.address, timeout=60) as person:
        pages = await _pages(person, served)
        reads = READS_QUICK if options.quick else READS
        await _turn(person, pages, WARM_READS, entries)
        return await take_turns(options.rounds, [partial(_turn, person, pages, reads, entries)], "ms")


async def build(url: str, entries: int) -> None:
    """A ledger of that many entries, folded, as its own writers leave it; some hundred thousand a minute and core."""
    async with meterbook.open(url) as book:
        await _enrol(book)
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
            for number, (first, after) in enumerate(_steps(entries)):
                await conn.execute(SQL["record_entries"], {"users": USERS, "first": first, "last": after - 1})
                if number % FOLD_EVERY == FOLD_EVERY - 1:
                    await book.compact()
            await book.compact()
            await conn.execute(SQL["settle"])
            cursor = await conn.execute(SQL["count_entries"])
            row = await cursor.fetchone()
    if row is None or row[0] != entries + USERS:
        raise RuntimeError(f"{row} of {entries} entries were recorded")


def _steps(entries: int) -> Iterator[tuple[int, int]]:
    return pairwise([*range(1, entries + 1, ENTRIES_PER_STATEMENT), entries + 1])


async def _enrol(book: meterbook.Book) -> None:
    start = datetime.now(UTC) - timedelta(days=12)
    for number in range(ORGANIZATIONS):
        name, first = f"org_{number}", number * MEMBERS
        await book.put_organization(name, owner=f"user_{first}")
        for member in range(first + 1, first + MEMBERS):
            await book.add_member(name, f"user_{member}")
        await _subscribe(book, f"organization:{name}", "team_6000", MEMBERS, start)
    for number in range(ORGANIZATIONS * MEMBERS, ORGANIZATIONS * MEMBERS + SUBSCRIBERS):
        await _subscribe(book, f"user:user_{number}", "pro_6000", 1, start)
    await book.record_many([
        Usage(f"user_{n}", "workflow", "first contact", "0.01", event_key=f"first contact {n}") for n in range(USERS)
    ])  # fmt: skip


async def _subscribe(book: meterbook.Book, owner: str, plan: str, seats: int, start: datetime) -> None:
    await book.put_subscription(
        id=f"sub {owner}", owner=owner, plan=plan, seats=seats, status="active", starts_at=start, ends_at=start + timedelta(days=30),
        stripe_customer=f"cus {owner}", stripe_subscription=f"sub {owner}",
    )  # fmt: skip


async def _pages(person: httpx.AsyncClient, served: Served) -> dict[str, str]:
    """Signs in, makes a customer's link, and gives each page by its address."""
    await person.post("/console/login", data={"key": served.keys["admin"], "next": "/console"})
    entity = f"/console/entity?entity={PAYER}"
    shown = (await person.get(entity)).text
    csrf, older = _found(_CSRF, shown), _found(_OLDER, shown).replace("&amp;", "&")
    made = await person.post("/console/links", data={"csrf": csrf, "entity": PAYER, "days": "1"})
    link = _found(_LINK, made.text)
    return {
        "overview": "/console",
        "payer": entity,
        "payer, next page of entries": older,
        "payer, entries of a source": f"{entity}&source=source+1",
        "payer, entries of a day and member": f"{entity}&actor=user_1&start={datetime.now(UTC) - timedelta(days=2):%Y-%m-%dT%H:%M}",
        "explain": f"/console/explain?entity={PAYER}",
        "customer": link.removeprefix(served.address),
        "find": "/console/find?q=user_1",
        "periods and charges": "/console/billing",
        "problems": "/console/problems",
        "keys and audit": "/console/keys",
    }


def _found(pattern: re.Pattern[str], page: str) -> str:
    found = pattern.search(page)
    if found is None:
        raise RuntimeError(f"{pattern.pattern} is not on the page: {page[:2000]}")
    return found[1]


async def _turn(person: httpx.AsyncClient, pages: dict[str, str], reads: int, entries: int) -> dict[str, float]:
    """The pages take turns, as one person after the other asks for them."""
    seen: dict[str, list[float]] = {name: [] for name in pages}
    for _ in range(reads):
        for name, address in pages.items():
            started = perf_counter()
            answer = await person.get(address)
            seen[name].append(perf_counter() - started)
            if answer.status_code != httpx.codes.OK:
                raise RuntimeError(f"{name}: {answer.status_code} {answer.text[:500]}")
    return {
        f"console/{name} at {entries}/{quantity}": quantile(times, share) * 1e3
        for name, times in seen.items()
        for quantity, share in (("p50", 0.5), ("p99", 0.99))
    }
