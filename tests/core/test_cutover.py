"""The arithmetic of a cutover: what moved after the switch, what has a day, what is refused."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from meterbook.catalogs import load_catalog
from meterbook.core.cutover import Reading, movements, outstanding, pooled_days, recordable
from meterbook.core.cutover_plan import LegacySubscription, Person, payer_of, person_findings
from tests.ledger import P1

CATALOG = load_catalog()
ZERO = Decimal(0)
RESTING = Reading("user:u", "running", "u", ZERO, ZERO, ZERO, Decimal(10), ZERO, ZERO, ZERO, Decimal(10), ZERO)
KEPT = replace(RESTING, name="kept:u", kind="kept", seen=ZERO, value=ZERO)
NOW = datetime(2026, 6, 11, tzinfo=UTC)
PERSON = Person("u", ZERO, ZERO, ZERO, ZERO, None, None, ZERO, None, None, None, None, 0)
PRO = LegacySubscription(
    "s", "user:u", "pro_6000", "active", *P1, None, None, cancel_at_period_end=False, stripe_customer=None, stripe_subscription=None
)  # fmt: skip


def rises(*readings: Reading) -> list[Decimal]:
    return [one.rise for one in movements(readings)]


def test_a_counter_that_rises_moved_by_what_it_rose() -> None:
    """The plain case of an old instance."""
    assert rises(replace(RESTING, value=Decimal("12.5"))) == [Decimal("2.5")]


def test_a_counter_that_the_product_closed_moved_by_what_came_before_and_after() -> None:
    """Seen at 10; closed at 12 (its last-period value), now 1: 3 were added."""
    assert rises(replace(RESTING, value=Decimal(1), last=Decimal(12))) == [Decimal(3)]


def test_a_counter_that_was_moved_to_another_one_moved_by_what_that_got_more() -> None:
    """Seen at 10, kept at 12 when its user joined an organization: 2; at 10: nothing."""
    gone = replace(RESTING, value=ZERO)
    assert rises(gone, replace(KEPT, value=Decimal(12))) == [Decimal(2)]
    assert rises(gone, replace(KEPT, value=Decimal(10))) == [ZERO]


def test_a_fall_that_nothing_explains_takes_nothing_back_and_is_said() -> None:
    """Somebody edited the row: what was billed stays, and the report names it."""
    (found,) = movements([replace(RESTING, value=Decimal(4))])
    assert (found.rise, found.note) == (ZERO, "fell from 10 to 4 without a close; nothing was taken back")


def test_what_a_writer_of_both_recorded_itself_is_not_outstanding() -> None:
    """Moved by 3, of which 1 is in the ledger under the row's key and 1.5 was absorbed: 0.5."""
    reading = replace(RESTING, moved=Decimal(1), rows=Decimal(1), absorbed=Decimal("1.5"), value=Decimal(12))
    assert outstanding(reading, movements([reading])[0]) == Decimal("0.5")


def test_more_places_than_usage_may_have_wait_for_the_next_look() -> None:
    """Cut at twelve places, never rounded up."""
    assert recordable(Decimal("0.1234567890129")) == Decimal("0.123456789012")
    assert recordable(Decimal("0.0000000000009")) == ZERO
    assert str(recordable(Decimal("2.50"))) == "2.5"


def test_each_counter_is_dated_by_its_own_rows() -> None:
    """One member's rows date no other member's counter, and together they date no more than is owed."""
    days = pooled_days({"a": Decimal(3), "b": Decimal(1)}, {"a": {0: Decimal(1)}, "b": {0: Decimal(5), 1: Decimal(5)}})
    assert days == {0: Decimal(2)}
    assert pooled_days({"a": Decimal(3), "b": Decimal(-2)}, {"a": {0: Decimal(3)}}) == {0: Decimal(1)}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"plan": "gold"}, "unknown_plan"),
        ({"interval": "week"}, "unknown_interval"),
        ({"interval": "year"}, "longer_than_a_month"),
        ({"ends_at": None}, "no_period"),
        ({"ends_at": P1[0] - timedelta(days=1)}, "no_period"),
    ],
)
def test_a_subscription_that_cannot_be_taken_over_is_refused(change: dict[str, object], code: str) -> None:
    """Never the free plan instead of it: its entity is left out until it is mended."""
    found = person_findings(PERSON, {"user:u": [replace(PRO, **change)]}, CATALOG, NOW)  # type: ignore[arg-type]
    assert [(one.code, one.subject, one.refused) for one in found] == [(code, "user:u", True)]


def test_the_payer_is_the_ledgers_by_the_same_rule() -> None:
    """Highest rank wins, within one rank the organization's; nobody entitled: the user, free."""
    member = replace(PERSON, organization_id="o", role="member", memberships=1)
    team = replace(PRO, id="t", owner="organization:o", plan="team_6000")
    assert payer_of(PERSON, {}, CATALOG) == ("user:u", None)
    assert payer_of(member, {"user:u": [PRO], "organization:o": [team]}, CATALOG) == ("organization:o", team)
    assert (
        payer_of(member, {"user:u": [PRO], "organization:o": [replace(team, status="unpaid")]}, CATALOG)[0] == "user:u"
    )


def test_counters_below_zero_and_two_organizations_are_refused() -> None:
    """What nobody can read is not guessed."""
    odd = replace(PERSON, running=Decimal(-1), memberships=2)
    assert {one.code for one in person_findings(odd, {}, CATALOG, NOW) if one.refused} == {
        "negative_counter",
        "two_organizations",
    }
