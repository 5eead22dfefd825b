"""A ledger with a month that has ended a few days ago and that nobody has billed yet."""

from datetime import UTC, datetime, timedelta

import meterbook
from tests.conftest import Clock

ADDRESSED, UNADDRESSED = "user:ada", "user:bob"


def month_just_ended() -> tuple[datetime, datetime]:
    """Two to five days ago, on a day that every month has, so that the next one is still running."""
    ended = datetime.now(UTC) - timedelta(days=2)
    ended = ended.replace(day=min(ended.day, 28))
    before = ended.replace(day=1) - timedelta(days=1)
    return before.replace(day=ended.day), ended


async def make_month(database_url: str) -> None:
    """Ada and Bob are on pro_6000 (30.00 included, 0.25 a day) and used 80.00 on one day; Bob has no Stripe ids."""
    started, ended = month_just_ended()
    clock = Clock(ended - timedelta(days=20))
    async with meterbook.open(database_url, clock=clock) as book:
        for owner, stripe in ((ADDRESSED, "1"), (UNADDRESSED, None)):
            await book.put_subscription(
                id=f"sub {owner}",
                owner=owner,
                plan="pro_6000",
                status="active",
                starts_at=started,
                ends_at=ended,
                stripe_customer=stripe,
                stripe_subscription=stripe,
            )
            await book.record(
                owner.partition(":")[2], source="workflow", description="gpt-4o", amount="80", event_key=f"run {owner}"
            )
        await book.grant_credit(ADDRESSED, amount="25.10", grant_id="promo_1")
