"""The same steps without async: what is left out with its reason stops nobody else."""

from decimal import Decimal

import meterbook.sync
from meterbook.mappings import load_mapping
from tests.conftest import Clock
from tests.ledger import P1, query, utc
from tests.legacy_product.history import Product


def test_the_steps_by_the_synchronous_book(legacy_url: str, clock: Clock) -> None:
    """Plan, shadow, switch, absorb, verify, rollback; an unknown plan is refused, and the others go over."""
    product = Product()
    for name in ("u", "gold"):
        product.user(name)
        product.charge(name, "18.40", P1[0])
    product.subscription("u", "pro_6000")
    product.subscription("gold", "gold")
    product.write(legacy_url)
    clock.now = utc(2026, 6, 11)
    with meterbook.sync.open(legacy_url, clock=clock) as book, book.cutover(load_mapping()) as cutover:
        assert [one.entity for one in cutover.plan()] == ["user:u"]
        assert (cutover.shadow().refused, [one.subject for one in cutover.refusals()]) == (1, ["user:gold"])
        assert [(one.entity, one.outcome) for one in cutover.switch()] == [("user:u", "switched")]
        query(
            legacy_url,
            "update public.user_stats set current_period_cost = current_period_cost + 1.6 where user_id = 'u'",
        )
        assert cutover.absorb().recorded == Decimal("1.6")
        assert book.usage("user:u").total == Decimal(20)
        assert (cutover.verify(), book.verify()) == ([], [])
        assert [one.outcome for one in cutover.roll_back()] == ["rolled_back"]
