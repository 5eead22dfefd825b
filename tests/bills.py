"""What the tests of billing share: a customer who can be invoiced, lumps of usage, and the books of what was billed."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any

from meterbook import Book
from meterbook.core.money import cents
from tests.ledger import P1, Window, query, subscribe, use


async def pays(book: Book, owner: str, plan: str = "pro_6000", window: Window = P1, **terms: Any) -> None:
    """A subscription with Stripe's ids."""
    ids = {"stripe_customer": f"cus_{owner}", "stripe_subscription": f"sub_{owner}"}
    await subscribe(book, owner, plan, window, **ids | terms)


async def organization(
    book: Book, name: str, *members: str, plan: str = "team_6000", window: Window = P1, **terms: Any
) -> None:
    """`boss` owns it."""
    await book.put_organization(name, owner="boss")
    for member in members:
        await book.add_member(name, member)
    await pays(book, f"organization:{name}", plan, window, **terms)


async def lump(book: Book, actor: str, amount: str, day: int = 0, window: Window = P1, **said: Any) -> str:
    """Usage inside the 24-hour bucket `day` of a period; gives the entry's id."""
    recorded = await use(book, actor, amount, occurred_at=window[0] + timedelta(days=day, hours=1), **said)
    return recorded.entries[0].id


async def charged(book: Book, entity: str) -> list[int]:
    """Cents of each charge, oldest first."""
    return [charge.amount_cents for charge in await book.charges(entity) if charge.amount_cents]


async def invoices(book: Book, entity: str | None = None) -> list[int]:
    """Cents of each outbox row that will become an invoice."""
    return [row.payload["amount_cents"] for row in await book.outbox(entity) if row.kind == "charge"]


async def alerts(book: Book, entity: str) -> list[str]:
    """What an entity was told, oldest first."""
    return [row.payload["alert"] for row in await book.outbox(entity) if row.kind == "alert"]


async def balance(book: Book, entity: str) -> int:
    """Cents that can be spent now."""
    return (await book.credits(entity)).balance_cents


async def state_of(book: Book, entity: str, window: Window = P1) -> str:
    """Of the period that starts where `window` does."""
    (state,) = [period.state for period in await book.periods(entity) if period.starts_at == window[0]]
    return state


async def period_id(book: Book, entity: str, window: Window = P1) -> int:
    (found,) = [period.id for period in await book.periods(entity) if period.starts_at == window[0]]
    return found


WAITING = """
select 1 from pg_locks l join pg_stat_activity a using (pid) where not l.granted and a.datname = current_database()
"""


async def somebody_waits(database_url: str, sessions: int = 1) -> None:
    """Returns when so many sessions wait for another's lock."""
    for _ in range(1000):
        if len(query(database_url, WAITING)) >= sessions:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody waits for a lock")


SEALED = """
select s.overage, s.charged_cents, s.credits_cents, s.written_off_cents,
       coalesce((select sum(c.charged_cents + c.credits_cents) from meterbook.charge c
                 where c.entity_id = s.entity_id and c.period_id = s.period_id and c.kind = 'threshold'), 0)
from meterbook.sealed_period s
"""
UNBALANCED = """
select 'charge without its outbox row', c.id from meterbook.charge c
where c.charged_cents <> coalesce((select sum((o.payload ->> 'amount_cents')::bigint) from meterbook.outbox o
                                   where o.kind = 'charge' and (o.payload ->> 'charge')::bigint = c.id), 0)
union all
select 'credits that no grant paid', c.id from meterbook.charge c
where c.credits_cents <> coalesce((select sum(s.cents) from meterbook.credit_spend s where s.charge_id = c.id), 0)
union all
select 'grant overspent', g.id from meterbook.credit_grant g
where g.cents < (select sum(s.cents) from meterbook.credit_spend s where s.grant_id = g.id)
union all
select 'closed and not sealed', p.id from meterbook.billing_period p
where (p.state = 'closed') <> exists (select from meterbook.sealed_period s where s.entity_id = p.entity_id and s.period_id = p.id)
union all
select 'sealed figures that are not its entries', s.period_id from meterbook.sealed_period s
where (s.amount, s.entries) <> (select coalesce(sum(l.amount), 0), count(*) from meterbook.usage_log l
  left join meterbook.late_entry e on e.entity_id = l.entity_id and e.key = l.key
  where l.entity_id = s.entity_id and coalesce(e.booked, l.period_id) = s.period_id)
"""


async def check_books(book: Book, database_url: str) -> None:
    """I3, I7 for every closed period, and that the ledger bears out every derived figure."""
    for overage, in_charges, in_credits, written_off, before in query(database_url, SEALED):
        assert in_charges + in_credits + written_off == max(cents(Decimal(overage)), before)
    assert query(database_url, UNBALANCED) == []
    assert await book.verify() == []
