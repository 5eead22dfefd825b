"""A catalog of plans, read from its TOML text (BEHAVIOUR §7)."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from decimal import Decimal

from meterbook.core.money import ZERO
from meterbook.core.plans import Catalog, FreePeriod, Plan
from meterbook.errors import InvalidCatalog

_FREE = "free"
_BY_CONTRACT = "contract"
_NO_OVERAGE = "no overage"
_RANK_MAX = 1000
_GRACE_MINUTES_MAX = 7 * 24 * 60

_AMOUNT = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")
_WHOLE_CENTS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,2})?")
_PLAN_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_CURRENCY = re.compile(r"[A-Z]{3}")
_NOT_OF_TWO_DECIMALS = re.compile(
    "BHD|BIF|CLF|CLP|DJF|GNF|IQD|ISK|JOD|JPY|KMF|KRW|KWD|LYD|MGA|MRU|OMR|PYG|RWF|TND|UGX|UYI|UYW|VND|VUV|XAF|XOF|XPF"
)


def parse_catalog(source: str | Mapping[str, object]) -> Catalog:
    """A catalog from TOML text or from what TOML text says.

    Raises `InvalidCatalog` with everything that is wrong at once, each problem under its field:
    `plans.pro.included: …`.
    """
    problems: list[str] = []
    catalog = _catalog(_Table("", _tables(source), problems))
    if problems:
        raise InvalidCatalog(tuple(problems))
    return catalog


def _tables(source: str | Mapping[str, object]) -> Mapping[str, object]:
    if not isinstance(source, str):
        return source
    try:
        return tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        raise InvalidCatalog((f"not TOML: {error}",)) from error


class _Table:
    """Reads one table's fields and adds what is wrong with them to the catalog's problems.

    A field that is wrong reads as a placeholder: a catalog with problems is never handed out.
    """

    def __init__(self, path: str, fields: Mapping[str, object], problems: list[str]) -> None:
        self.path = path
        self.fields = fields
        self.problems = problems

    def problem(self, name: str, what: str) -> None:
        self.problems.append(f"{self.path}{name}: {what}")

    def refuse_others(self, *known: str) -> None:
        for name in self.fields:
            if name not in known:
                self.problem(name, f"unknown field; known are {', '.join(known)}")

    def text(self, name: str, default: str | None) -> str | None:
        """A string field; None, with the problem noted, if there is none."""
        value = self.fields.get(name, default)
        if isinstance(value, str):
            return value
        self.problem(name, "missing" if value is None else f"must be a string in quotes, not {value!r}")
        return None

    def amount(self, name: str, default: str | None = None) -> Decimal:
        return self._amount(name, default, _AMOUNT, "at most 12 digits and 12 decimal places") or ZERO

    def whole_cents(self, name: str, default: str | None = None, *, above_zero: bool = False) -> Decimal:
        amount = self._amount(name, default, _WHOLE_CENTS, "at most 12 digits and whole cents")
        if above_zero and amount == ZERO:
            self.problem(name, "must be above 0")
        return amount or ZERO

    def _amount(self, name: str, default: str | None, pattern: re.Pattern[str], what: str) -> Decimal | None:
        text = self.text(name, default)
        if text is None:
            return None
        if not pattern.fullmatch(text):
            self.problem(name, f"{text!r} is no amount ({what}, no sign, no exponent)")
            return None
        return Decimal(text)

    def number(self, name: str, at_most: int, default: int | None = None) -> int:
        value = self.fields.get(name, default)
        if value is None:
            self.problem(name, "missing")
        elif isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= at_most:
            self.problem(name, f"must be a whole number from 0 to {at_most}, not {value!r}")
        else:
            return value
        return 0

    def says(self, name: str, word: str) -> bool:
        return self.fields.get(name) == word

    def tables(self, name: str) -> Iterator[tuple[str, "_Table"]]:
        """The tables inside the field, each under its name."""
        value = self.fields.get(name, {})
        if not isinstance(value, Mapping):
            self.problem(name, f"must be a table, not {value!r}")
            return
        for key, fields in value.items():
            if isinstance(fields, Mapping):
                yield key, _Table(f"{self.path}{name}.{key}.", fields, self.problems)
            else:
                self.problem(f"{name}.{key}", f"must be a table, not {fields!r}")


def _catalog(table: _Table) -> Catalog:
    table.refuse_others("currency", "threshold", "smallest_charge", "settlement_grace_minutes", "free_period", "plans")
    return Catalog(
        currency=_currency(table),
        threshold=table.whole_cents("threshold", "100.00", above_zero=True),
        smallest_charge=table.whole_cents("smallest_charge", "0.50", above_zero=True),
        settlement_grace=timedelta(minutes=table.number("settlement_grace_minutes", _GRACE_MINUTES_MAX, 60)),
        free_period=_free_period(table),
        plans=_plans(table),
    )


def _currency(table: _Table) -> str:
    currency = table.text("currency", "USD")
    if currency is not None and (not _CURRENCY.fullmatch(currency) or _NOT_OF_TWO_DECIMALS.fullmatch(currency)):
        table.problem("currency", f"{currency!r} is no currency of two decimals, like USD")
    return currency or ""


def _free_period(table: _Table) -> FreePeriod:
    if table.says("free_period", "calendar"):
        return "calendar"
    if table.text("free_period", "lifetime") not in {"lifetime", None}:
        table.problem("free_period", 'must be "lifetime" or "calendar"')
    return "lifetime"


def _plans(table: _Table) -> tuple[Plan, ...]:
    named = list(table.tables("plans"))
    if _FREE not in dict(named):
        table.problem("plans.free", "missing; every catalog has a free plan")
    plans = tuple(_plan(code, fields) for code, fields in named)
    _refuse_shared_prices(table, plans)
    return plans


def _plan(code: str, table: _Table) -> Plan:
    if not _PLAN_CODE.fullmatch(code):
        table.problems.append(f"plans.{code!r}: a plan's code has letters, digits, _ and - only, at most 64")
    table.refuse_others("price", "included", "refresh", "rank", "limit", "prices")
    plan = Plan(
        code=code,
        price=None if table.says("price", _BY_CONTRACT) else table.whole_cents("price"),
        included=None if table.says("included", _NO_OVERAGE) else table.amount("included"),
        refresh=table.amount("refresh"),
        rank=table.number("rank", _RANK_MAX),
        limit=table.whole_cents("limit") if code == _FREE else None,
        prices=_prices(table),
    )
    _refuse_contradictions(plan, table)
    return plan


def _refuse_contradictions(plan: Plan, table: _Table) -> None:
    if plan.code == _FREE and plan.included != ZERO:
        table.problem("included", 'must be "0": the free plan is bounded by its limit')
    if plan.code != _FREE and "limit" in table.fields:
        table.problem("limit", "only the free plan has a fixed limit")
    if plan.refresh and not plan.has_overage:
        table.problem("refresh", 'must be "0": only a plan with overage has a daily refresh')


def _prices(table: _Table) -> tuple[str, ...]:
    value = table.fields.get("prices", ())
    if isinstance(value, (list, tuple)) and all(isinstance(price, str) and price for price in value):
        return tuple(value)
    table.problem("prices", f'must be a list of Stripe price ids, like ["price_…"], not {value!r}')
    return ()


def _refuse_shared_prices(table: _Table, plans: tuple[Plan, ...]) -> None:
    owner: dict[str, str] = {}
    for plan in plans:
        for price in plan.prices:
            if owner.setdefault(price, plan.code) != plan.code:
                table.problem(f"plans.{plan.code}.prices", f"{price} is listed for {owner[price]} already")
