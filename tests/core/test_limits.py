from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from meterbook.catalogs import load_catalog
from meterbook.core.limits import EntityKind, limit_of, standing

ORIGIN = load_catalog()
amounts = st.decimals(0, 100_000, places=6)


def limit(
    plan: str,
    seats: int = 1,
    *,
    stored: str | None = None,
    credits: str = "0",  # noqa: A002
    kind: EntityKind = "user",
) -> Decimal:
    return limit_of(
        ORIGIN.plan(plan),
        kind,
        included=ORIGIN.allowance(plan, seats).included,
        stored=None if stored is None else Decimal(stored),
        credits=Decimal(credits),
    )


@pytest.mark.parametrize(
    ("used", "of", "percent", "percent_shown", "status"),
    [
        ("39.99", "50", "79.98", 79, "ok"),
        ("40.00", "50", "80", 80, "warning"),
        ("49.99", "50", "99.98", 99, "warning"),
        ("49.999999", "50", "99.99", 99, "warning"),
        ("50.00", "50", "100", 100, "exceeded"),
        ("60", "50", "100", 100, "exceeded"),
        ("0", "0", "100", 100, "exceeded"),
        ("97.40", "120", "81.16", 81, "warning"),
        ("0", "5", "0", 0, "ok"),
    ],
)
def test_s40_boundaries(used: str, of: str, percent: str, percent_shown: int, status: str) -> None:
    """S40: the status compares exactly; the percentage is cut, at two places and as a whole number."""
    seen = standing(Decimal(used), Decimal(of))
    assert (seen.percent, seen.percent_shown, seen.status) == (Decimal(percent), percent_shown, status)


def test_s28_four_of_five_is_a_warning() -> None:
    """S28 (the figures): 4.00 of 5.00 on free is 80 %."""
    seen = standing(Decimal("4.00"), limit("free"))
    assert (seen.percent_shown, seen.status) == (80, "warning")


@pytest.mark.parametrize(("stored", "expected"), [(None, "120"), ("80", "120"), ("200", "200")])
def test_s41_an_organizations_limit_is_at_least_what_its_seats_include(stored: str | None, expected: str) -> None:
    """S41: team_6000 × 4."""
    assert limit("team_6000", 4, stored=stored, kind="organization") == Decimal(expected)


@pytest.mark.parametrize(("stored", "expected"), [("1500", "1500"), (None, "0")])
def test_s41_enterprise_is_limited_by_what_is_stored(stored: str | None, expected: str) -> None:
    """S41: with nothing stored everything is denied, even at no usage."""
    of = limit("enterprise", stored=stored, kind="organization")
    assert of == Decimal(expected)
    assert standing(Decimal(0), of).status == ("exceeded" if stored is None else "ok")


def test_s43_what_the_limit_follows() -> None:
    """S43, in its order: the stored limit waits while a larger included or the free plan applies, and comes back."""
    story = [
        ("free", None),
        ("pro_6000", None),
        ("pro_6000", "75"),
        ("pro_25000", "75"),
        ("pro_6000", "75"),
        ("free", "75"),
    ]
    assert [limit(plan, stored=stored) for plan, stored in story] == [5, 30, 75, 125, 75, 5]


@pytest.mark.parametrize("seats", [5, 3])
def test_s43_a_stored_limit_survives_fewer_seats(seats: int) -> None:
    """S43: team_6000 with 150 stored, which 5 seats include and 3 do not."""
    assert limit("team_6000", seats, stored="150", kind="organization") == Decimal(150)


def test_s44_without_a_stored_limit_included_and_credits_are_the_limit() -> None:
    """S44: 30 + 10 = 40, so 12 is allowed; storing 60 makes it 60."""
    assert limit("pro_6000", credits="10") == Decimal(40)
    assert standing(Decimal(12), Decimal(40)).status == "ok"
    assert limit("pro_6000", credits="10", stored="60") == Decimal(60)


def test_s83_credits_raise_the_limit_of_a_pool() -> None:
    """S83 (the limits): 50 bought: 80 on pro_6000, 200 where 200 is stored, 170 on team_6000 × 4."""
    assert limit("pro_6000", credits="50") == Decimal(80)
    assert limit("pro_6000", credits="50", stored="200") == Decimal(200)
    assert limit("team_6000", 4, credits="50", kind="organization") == Decimal(170)


@pytest.mark.parametrize("stored", [None, "75"])
def test_free_is_five_for_a_person_and_nothing_for_an_organization(stored: str | None) -> None:
    """§8: whatever is stored; credits wait for a plan with overage."""
    assert limit("free", stored=stored, credits="20") == Decimal("5.00")
    assert limit("free", stored=stored, credits="20", kind="organization") == 0


@given(used=amounts, of=amounts)
def test_a_percentage_shown_is_never_above_the_exact_one(used: Decimal, of: Decimal) -> None:
    """Cut, less than a hundredth below it, and 100 exactly when the limit is reached."""
    assume(of > 0)
    seen = standing(used, of)
    assert (seen.percent == 100) == (seen.status == "exceeded") == (used >= of)
    if used < of:
        assert seen.percent * of <= used * 100 < (seen.percent + Decimal("0.01")) * of


@given(used=amounts, of=amounts)
def test_a_warning_begins_at_exactly_four_fifths(used: Decimal, of: Decimal) -> None:
    """Never both, and never decided by the rounded percentage."""
    status = standing(used, of).status
    assert (status == "warning") == (used < of and 5 * used >= 4 * of)
