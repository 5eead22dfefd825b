"""Exact amounts (BEHAVIOUR §2): Decimal in Python, numeric in PostgreSQL, strings in JSON. Cents are made here and nowhere else."""

import re
from collections.abc import Iterable
from decimal import (
    MAX_EMAX,
    MIN_EMIN,
    ROUND_HALF_UP,
    Context,
    Decimal,
    DivisionByZero,
    Inexact,
    InvalidOperation,
    Overflow,
)
from functools import reduce

AMOUNT_PLACES_MAX = 12
AMOUNT_BELOW = Decimal(10) ** 12
ZERO = Decimal(0)

EXACT = Context(prec=200, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[Inexact, InvalidOperation, DivisionByZero, Overflow])
"""Arithmetic that raises rather than lose a digit; the default context rounds at 28 digits without a word."""

_PLAIN = re.compile(r"-?[0-9]{1,30}(?:\.[0-9]{1,60})?")
_ORDINARY = re.compile(r"(?:0|[1-9][0-9]{0,11})(?:\.[0-9]{1,12})?")
_ROUNDING = Context(prec=200, rounding=ROUND_HALF_UP)
_CENT = Decimal("0.01")


def total_of(amounts: Iterable[Decimal]) -> Decimal:
    """Their exact sum; 0 of none."""
    return reduce(EXACT.add, amounts, ZERO)


def cents(amount: Decimal) -> int:
    """Whole cents, half up: 0.005 is 1 and -0.005 is -1. For money that is billed, credited or stored as a limit."""
    return int(amount.quantize(_CENT, context=_ROUNDING).scaleb(2, context=_ROUNDING))


def parse_amount(value: object) -> Decimal:
    """A finite exact amount of at most 12 places and below 10¹², trailing zeros cut. `ValueError` says what is wrong.

    Takes Decimal, int, and plain digits in a string; float and bool never, since 0.1 is not 0.1 there.
    """
    amount = _decimal(value)
    if not amount.is_finite():
        raise ValueError(f"{amount} is not a finite amount")
    if amount.copy_abs() >= AMOUNT_BELOW:  # abs() would round in the caller's context, or overflow there
        raise ValueError(f"{amount:.40} is not below 10^12")
    try:
        plain = EXACT.normalize(amount)
    except Inexact:
        plain = amount
    if plain.as_tuple().exponent < -AMOUNT_PLACES_MAX:  # type: ignore[operator]  # finite: the exponent is a number
        raise ValueError(f"{amount:.40} has more than {AMOUNT_PLACES_MAX} decimal places")
    return plain


def ordinary_usage(value: object) -> str | None:
    """The shortest text of an amount of usage that is sound as it is written, as nearly all are. None: `parse_usage` has to judge it."""
    text = str(value) if type(value) is Decimal else value
    if type(text) is not str or _ORDINARY.fullmatch(text) is None:
        return None
    return text.rstrip("0").rstrip(".") if "." in text else text


def parse_usage(value: object) -> Decimal:
    """An amount of usage: 0 or more."""
    amount = parse_amount(value)
    if amount < ZERO:
        raise ValueError(f"{value} is negative; a correction is a call of its own")
    return amount


def parse_above_zero(value: object) -> Decimal:
    """An amount of something: a hold, a grant."""
    amount = parse_usage(value)
    if amount == ZERO:
        raise ValueError("0 is nothing: pass an amount above 0")
    return amount


def parse_whole_cents(value: object) -> int:
    """Money that is granted, in cents: above 0, and nothing beyond two places."""
    amount = parse_above_zero(value)
    if EXACT.scaleb(amount, 2) != cents(amount):
        raise ValueError(f"{amount} is not a number of whole cents")
    return cents(amount)


def _decimal(value: object) -> Decimal:
    if isinstance(value, Decimal):
        return value
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) is None:
            raise ValueError(f"{value[:40]!r} is not a plain decimal number")
        return Decimal(value)
    if isinstance(value, bool | float):
        raise ValueError(f"{value!r} is a {type(value).__name__}: pass a string or a Decimal, which are exact")  # noqa: TRY004
    if isinstance(value, int):
        return Decimal(value)
    raise ValueError(f"{type(value).__name__} is no amount: pass a string or a Decimal")
