"""Exact amounts (§2)."""

from decimal import Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterbook.core.money import cents, parse_above_zero, parse_amount, parse_usage, parse_whole_cents

LARGEST = "999999999999.999999999999"


@pytest.mark.parametrize(
    ("said", "amount"),
    [
        ("0.1", "0.1"),
        ("1.00", "1"),
        ("0001.5", "1.5"),
        ("0.000000000001", "0.000000000001"),
        ("0.1000000000000", "0.1"),
        ("1." + "0" * 60, "1"),
        (LARGEST, LARGEST),
        ("-0", "0"),
        (7, "7"),
        (10**12 - 1, "999999999999"),
        (Decimal("1E+3"), "1000"),
        (Decimal("1E-12"), "0.000000000001"),
        (Decimal("0E+999999"), "0"),
        (Decimal("0E-999999"), "0"),
        (Decimal("1." + "0" * 300), "1"),
        (Decimal(LARGEST), LARGEST),
    ],
)
def test_an_amount_is_taken_exactly(said: Any, amount: str) -> None:
    """Trailing zeros are cut first; 12 places, below 10¹²; Decimals may have an exponent, strings are plain."""
    assert parse_amount(said) == Decimal(amount)


NO_AMOUNTS: list[Any] = [
    0.1,
    1.0,
    True,
    False,
    None,
    b"1",
    [],
    "",
    " 1",
    "1 ",
    "+1",
    "1_000",
    "1e3",
    "1E-3",
    ".5",
    "5.",
    "0x10",
    "١",
    "１",
    "abc",
    "1,5",
    "1\n",
    "NaN",
    "sNaN",
    "Infinity",
    "-Infinity",
    "1" * 31,
    "1" * 100_000,
    "0.0000000000001",
    "0." + "0" * 61,
    "1000000000000",
    10**12,
    -(10**12),
    10**5000,
    Decimal("NaN"),
    Decimal("sNaN"),
    Decimal("Infinity"),
    Decimal("-Infinity"),
    Decimal("1E+12"),
    Decimal("1E+999999"),
    Decimal("1E+9999999"),
    Decimal("1E-13"),
    Decimal("1E-9999999"),
    Decimal("1." + "0" * 300 + "1"),
    Decimal("9" * 12 + "." + "9" * 40),
    Decimal("0.1" + "0" * 200 + "1"),
]


@pytest.mark.parametrize("said", NO_AMOUNTS, ids=[f"{n} {type(said).__name__}" for n, said in enumerate(NO_AMOUNTS)])
def test_what_is_no_exact_amount_is_refused(said: Any) -> None:
    """Floats and booleans, whatever is not finite, 13 places, 10¹², any other writing: refused, never rounded."""
    with pytest.raises(ValueError, match=r"."):
        parse_amount(said)


@pytest.mark.parametrize("said", [0.5, True])
def test_a_float_is_told_what_to_pass(said: Any) -> None:
    """The error says to pass a string or a Decimal."""
    with pytest.raises(ValueError, match="pass a string or a Decimal"):
        parse_amount(said)


def test_usage_is_not_negative() -> None:
    """A correction is a call of its own."""
    assert parse_usage("0") == 0
    with pytest.raises(ValueError, match="correction"):
        parse_usage("-0.01")


def test_the_callers_decimal_context_changes_nothing() -> None:
    """Whatever precision and traps the caller's thread has."""
    with localcontext() as context:
        context.prec = 3
        assert parse_amount(LARGEST) == parse_amount(Decimal(LARGEST))
        assert format(parse_amount(Decimal(LARGEST)), "f") == LARGEST
        context.traps = dict.fromkeys(context.traps, True)
        assert format(parse_amount(Decimal(LARGEST)), "f") == LARGEST


@pytest.mark.parametrize(
    ("amount", "billed"),
    [("0.005", 1), ("0.0049999", 0), ("-0.005", -1), ("1.005", 101), ("130.456", 13046), ("250.555", 25056)],
)
def test_cents_are_made_half_up(amount: str, billed: int) -> None:
    """At two places, when money is billed."""
    assert cents(Decimal(amount)) == billed


@given(st.decimals(allow_nan=True, allow_infinity=True))
def test_any_decimal_is_taken_exactly_or_refused(said: Decimal) -> None:
    """No other error, and no digit lost."""
    try:
        amount = parse_amount(said)
    except ValueError:
        return
    assert amount == said
    assert abs(amount.as_tuple().exponent) <= 12  # type: ignore[arg-type]


@pytest.mark.parametrize("nothing", ["0", "0.00", "-1", "NaN", 0.5])
def test_what_is_held_or_granted_is_above_zero(nothing: object) -> None:
    """§8, §9: nothing can be held, and a grant of nothing is none."""
    for parse in (parse_above_zero, parse_whole_cents):
        with pytest.raises(ValueError, match=r".+"):
            parse(nothing)


def test_a_grant_is_whole_cents() -> None:
    """§9: 0.01 is one, 0.001 is refused and not rounded."""
    assert (parse_whole_cents("0.01"), parse_whole_cents("1000"), parse_above_zero("0.001")) == (
        1,
        100_000,
        Decimal("0.001"),
    )
    with pytest.raises(ValueError, match="whole cents"):
        parse_whole_cents("0.001")
