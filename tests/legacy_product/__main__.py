"""`make cutover-demo`: a product with live traffic goes from its counters to the ledger, step by step, without a wrong cent."""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import psycopg
from rich.console import Console

import meterbook
from meterbook.book import Book
from meterbook.book.cutover import Cutover
from meterbook.cli.cutover_screen import show_compared, show_plan, show_round, show_switched
from meterbook.cli.screen import amount_shown, console, table
from meterbook.mappings import load_mapping
from meterbook.postgres.embedded import embedded
from meterbook.sync.postgres.migrate import migrate
from tests.legacy_product.history import SCHEMA, Product, random_product
from tests.legacy_product.writers import Traffic

PEOPLE, ORGANIZATIONS, ROWS_EACH = 60, 4, 200
OLD, NEW = 8, 4
AGREE_FOR_S, ROLLOUT_S, QUIET_S = 3, 6, 3


def main() -> None:
    parser = argparse.ArgumentParser(prog="make cutover-demo", description=__doc__)
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cutover-demo-") as folder, embedded(Path(folder) / "engine") as engine:
        sys.exit(asyncio.run(_play(engine.url, asked.seed)))


async def _play(url: str, seed: int) -> int:
    on = console()
    product = _build(url, seed)
    on.print(
        f"{len(product.users)} users, {len(product.organizations)} organizations, {len(product.rows):,} audit rows"
    )
    async with meterbook.open(url) as book, book.cutover(load_mapping()) as cutover:
        _head(on, f"{OLD} writers of the product, undisturbed, for {AGREE_FOR_S} s")
        with Traffic(url, list(product.users), OLD, seed=1) as alone:
            await asyncio.sleep(AGREE_FOR_S)
        on.print(f"{alone.writes:,} charges, the longest took {alone.longest_wait_ms} ms")
        with Traffic(url, list(product.users), OLD, seed=2) as old:
            await _until_switched(on, cutover)
            new = await _roll_out(on, url, product, cutover, old)
        await _absorb_the_rest(on, cutover)
        show_compared(on, [one async for one in cutover.compare()])
        _head(on, "The end: what each entity was really charged, and what the ledger says")
        differing = await _told(on, book, _truth(product, alone, old, new))
        sound = not await cutover.verify() and not await book.verify()
    on.print(
        f"verify: {'clean' if sound else 'differences'}; charges that failed: {len(old.failures) + len(new.failures)}"
    )
    longest = max(old.longest_wait_ms, new.longest_wait_ms)
    on.print(f"{old.writes + new.writes:,} charges during the cutover; the longest wait of a writer: {longest} ms")
    return 0 if sound and not differing and not old.failures and not new.failures else 1


def _build(url: str, seed: int) -> Product:
    now = datetime.now(UTC)
    window = (now - timedelta(days=12), now + timedelta(days=18))
    product = random_product(seed, now, people=PEOPLE, organizations=ORGANIZATIONS, rows_each=ROWS_EACH, window=window)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(SCHEMA.read_bytes())
        migrate(conn)
    product.write(url)
    return product


def _head(on: Console, text: str) -> None:
    on.print(f"\n── {text}")


async def _until_switched(on: Console, cutover: Cutover) -> None:
    _head(on, "plan: reads only")
    planned = [one async for one in cutover.plan()]
    show_plan(on, planned, cutover.findings)
    _head(on, f"shadow: until every entity agrees for {AGREE_FOR_S} s, while they write")
    while True:
        done = await cutover.shadow()
        show_round(on, done)
        if done.agreed_since is not None and datetime.now(UTC) - done.agreed_since >= timedelta(seconds=AGREE_FOR_S):
            break
        await asyncio.sleep(1)
    show_compared(on, [one async for one in cutover.compare()])
    _head(on, "switch: each entity by itself, nobody stops writing")
    show_switched(on, [one async for one in cutover.switch()])


async def _roll_out(on: Console, url: str, product: Product, cutover: Cutover, old: Traffic) -> Traffic:
    _head(on, f"rollout: {NEW} new writers use the ledger alone, {OLD} old ones still count, for {ROLLOUT_S} s")
    before = old.writes
    with Traffic(url, list(product.users), NEW, ("ledger",), seed=3) as new:
        for _ in range(ROLLOUT_S):
            done = await cutover.absorb()
            on.print(f"{done.counters} counters moved, {amount_shown(done.recorded)} recorded as late usage")
            await asyncio.sleep(1)
    on.print(f"old: {old.writes - before:,} charges since the switch, new: {new.writes:,}")
    return new


async def _absorb_the_rest(on: Console, cutover: Cutover) -> None:
    _head(on, "the old writers have stopped")
    while True:
        done, late = await cutover.absorb(), await cutover.lateness(QUIET_S)
        if not late.moving and not done.waiting:
            break
        await asyncio.sleep(1)
    on.print(
        f"no counter has moved for {QUIET_S} s; late usage of old instances: {amount_shown(late.absorbed)}, once each"
    )


def _truth(product: Product, *traffic: Traffic) -> Mapping[str, Decimal]:
    """By entity: what the past had on its counters, and what every writer was told it had charged; members' usage is the pool's."""
    payer = {user: f"organization:{organization}" for _, user, organization, _, _ in product.members}
    truth = {f"organization:{name}": departed for name, _, _, _, departed in product.organizations}
    for name, user in product.users.items():
        entity = payer.get(name, f"user:{name}")
        charged = sum((one.charged.get(name, Decimal(0)) for one in traffic), user.running)
        truth[entity] = truth.get(entity, Decimal(0)) + charged
        if name in payer:
            truth[f"user:{name}"] = user.kept
    return truth


async def _told(on: Console, book: Book, truth: Mapping[str, Decimal]) -> int:
    made = table(on, "entity", "charged", "ledger", "difference", numbers=["charged", "ledger", "difference"])
    differing = 0
    for entity, charged in sorted(truth.items(), key=lambda one: -one[1]):
        said = (await book.usage(entity)).total
        differing += said != charged
        if charged:
            made.add_row(entity, amount_shown(charged, 6), amount_shown(said, 6), amount_shown(charged - said, 2))
    on.print(made)
    on.print(f"{len(truth)} entities, {differing} differ")
    return differing


if __name__ == "__main__":
    main()
