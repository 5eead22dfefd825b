from datetime import timedelta
from decimal import Decimal

import pytest

from meterbook.core.catalog_text import parse_catalog
from meterbook.errors import InvalidCatalog

FREE = '[plans.free]\nprice = "0"\nincluded = "0"\nrefresh = "0"\nrank = 0\nlimit = "5.00"\n'
PRO = '[plans.pro]\nprice = "20"\nincluded = "20"\nrefresh = "0.20"\nrank = 10\n'


SETTINGS = "currency, threshold, smallest_charge, settlement_grace_minutes, free_period, plans"


def problems_of(text: str) -> tuple[str, ...]:
    with pytest.raises(InvalidCatalog) as refused:
        parse_catalog(text)
    problems: tuple[str, ...] = refused.value.problems
    return problems


def test_the_free_plan_alone_is_a_catalog_with_every_default() -> None:
    """USD, threshold 100.00, smallest charge 0.50, one hour of grace, a lifetime of free usage."""
    catalog = parse_catalog(FREE)
    assert [plan.code for plan in catalog.plans] == ["free"]
    assert (catalog.currency, catalog.threshold, catalog.smallest_charge, catalog.settlement_grace) == (
        "USD",
        Decimal("100.00"),
        Decimal("0.50"),
        timedelta(hours=1),
    )
    assert catalog.free_period == "lifetime"


def test_every_setting_can_be_configured() -> None:
    """What the file says is what the catalog says, exactly."""
    catalog = parse_catalog(
        'currency = "EUR"\nthreshold = "50"\nsmallest_charge = "1.00"\nsettlement_grace_minutes = 90\n'
        'free_period = "calendar"\n' + FREE + PRO + 'prices = ["price_1", "price_2"]\n'
    )
    assert (catalog.currency, catalog.threshold, catalog.smallest_charge) == (
        "EUR",
        Decimal(50),
        Decimal("1.00"),
    )
    assert (catalog.settlement_grace, catalog.free_period) == (timedelta(minutes=90), "calendar")
    assert catalog.plan("pro").prices == ("price_1", "price_2")


def test_a_mapping_is_read_like_the_text_it_came_from() -> None:
    """So that a catalog may also live inside a larger configuration."""
    free = {"price": "0", "included": "0", "refresh": "0", "rank": 0, "limit": "5.00"}
    assert parse_catalog({"plans": {"free": free}}) == parse_catalog(FREE)


def test_everything_wrong_is_named_at_once_by_its_field() -> None:
    """One reading of the error is enough to mend the file."""
    assert problems_of(
        'currency = "JPY"\nthreshold = "0"\ncolour = "red"\nsettlement_grace_minutes = -1\n'
        'free_period = "weekly"\n'
        '[plans.pro]\nprice = 20\nincluded = 20.5\nrank = true\nlimit = "1"\nprices = "price_1"\n'
        '[plans."a b"]\nprice = "contract"\nincluded = "no overage"\nrefresh = "0.10"\nrank = 1\n'
    ) == (
        f"colour: unknown field; known are {SETTINGS}",
        "currency: 'JPY' is no currency of two decimals, like USD",
        "threshold: must be above 0",
        "settlement_grace_minutes: must be a whole number from 0 to 10080, not -1",
        'free_period: must be "lifetime" or "calendar"',
        "plans.free: missing; every catalog has a free plan",
        "plans.pro.price: must be a string in quotes, not 20",
        "plans.pro.included: must be a string in quotes, not 20.5",
        "plans.pro.refresh: missing",
        "plans.pro.rank: must be a whole number from 0 to 1000, not True",
        "plans.pro.prices: must be a list of Stripe price ids, like [\"price_…\"], not 'price_1'",
        "plans.pro.limit: only the free plan has a fixed limit",
        "plans.'a b': a plan's code has letters, digits, _ and - only, at most 64",
        'plans.a b.refresh: must be "0": only a plan with overage has a daily refresh',
    )


@pytest.mark.parametrize(
    "amount",
    ["-1", "+1", "1e3", "NaN", "Infinity", "1_000", " 1", "", "٣", "1.", ".5", "1" * 13, "1." + "1" * 13],
)
def test_an_amount_is_plain_digits(amount: str) -> None:
    """As on every wire: finite, unsigned, at most 12 digits and 12 places, nothing that Decimal guesses at."""
    assert len(problems_of(FREE + PRO.replace('included = "20"', f'included = "{amount}"'))) == 1


@pytest.mark.parametrize("field", ["threshold", "smallest_charge"])
@pytest.mark.parametrize("amount", ["0", "0.00", "1.005", "-1", "abc"])
def test_a_threshold_and_a_smallest_charge_are_cents_above_zero(field: str, amount: str) -> None:
    """One problem each, also where an amount is neither a number nor above 0."""
    (problem,) = problems_of(f'{field} = "{amount}"\n' + FREE)
    assert problem.startswith(f"{field}: ")


@pytest.mark.parametrize("field", ["price", "limit"])
def test_what_is_billed_or_limits_is_whole_cents(field: str) -> None:
    """§2: cents are made in one place, so a catalog can't ask for more places here."""
    text = f'[plans.free]\nincluded = "0"\nrefresh = "0"\nrank = 0\n{field} = "5.005"\n'
    other = {"price": 'limit = "5"\n', "limit": 'price = "0"\n'}[field]
    assert [problem.split(":")[0] for problem in problems_of(text + other)] == [f"plans.free.{field}"]


def test_one_stripe_price_belongs_to_one_plan() -> None:
    """Otherwise which plan a subscription has would depend on the order of the file."""
    shared = 'prices = ["price_1"]\n'
    (problem,) = problems_of(FREE + shared + PRO + shared)
    assert problem == "plans.pro.prices: price_1 is listed for free already"


def test_the_free_plan_includes_nothing_beside_its_limit() -> None:
    """Its limit alone bounds it; an included amount would be a second, silent one."""
    assert problems_of(FREE.replace('included = "0"', 'included = "5"')) == (
        'plans.free.included: must be "0": the free plan is bounded by its limit',
    )


@pytest.mark.parametrize("text", ["plans = 3\n", "plans.free = 3\n"])
def test_plans_are_tables(text: str) -> None:
    """Anything else is refused, not walked into."""
    assert any("must be a table" in problem for problem in problems_of(text))


@pytest.mark.parametrize("text", ["[plans", FREE + FREE, 'currency = "USD"\ncurrency = "EUR"\n'])
def test_broken_toml_and_duplicates_are_an_invalid_catalog(text: str) -> None:
    """TOML itself refuses a plan or a field that is there twice."""
    (problem,) = problems_of(text)
    assert problem.startswith("not TOML: ")
