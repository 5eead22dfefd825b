"""The end of the demo's month: the clock closes it, and what was billed is read back."""

from collections.abc import Sequence
from dataclasses import dataclass

from meterbook.book import Book
from meterbook.core.derivation import Derivation
from meterbook.core.ledgers import Charge, OutboxRow, Swept
from meterbook.demo import cast
from meterbook.demo.play import SettableClock

EXPLAINED = "organization:acme"


@dataclass(frozen=True, slots=True)
class MonthBilled:
    """What the closing sweep did, every charge of the month, what was told, and why one bill is what it is."""

    swept: Swept
    charges: Sequence[Charge]
    outbox: Sequence[OutboxRow]
    explained: Derivation


async def bill_month(book: Book, clock: SettableClock) -> MonthBilled:
    """At June 1st 01:00 the settlement grace has passed. Again, it finds the month closed."""
    clock.now = cast.CLOSED_AT
    swept = await book.sweep()
    payers = [f"organization:{each.name}" for each in cast.ORGANIZATIONS if each.plan is not None]
    payers += [f"user:{name}" for name in cast.SUBSCRIBERS]
    charges = [charge for payer in payers for charge in await book.charges(payer, "last")]
    return MonthBilled(swept, charges, await book.outbox(), await book.explain(EXPLAINED, "last"))
