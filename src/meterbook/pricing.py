"""Prices of model calls, from the data that ``genai-prices`` ships; never from the network.

``calc_price`` of the library walks its unit registry for each call, about 60 µs. Nearly every price is linear in the
tokens, within a bracket of input tokens, so the rates of a (model, UTC day, bracket) are read once and multiplied
after that. The few models whose price depends on the hour go through ``calc_price`` each time. A test holds the two
ways against each other for every model of the data.

The library is imported where it is used: it is a quarter of the start of every command, and few commands price.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC
from decimal import ROUND_HALF_EVEN, Context, Decimal
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date, datetime

    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo, ModelPrice, Provider

AMOUNT_PLACES_MAX = 12
RATES_CACHED_MAX = 10_000
PRICES_VERSION = version("genai-prices")

_NOTHING = Decimal(0)
_SMALLEST = Decimal(1).scaleb(-AMOUNT_PLACES_MAX)
_WIDE = Context(prec=80)
_PER_MILLION = Decimal(1).scaleb(-6)
_PER_THOUSAND = Decimal(1).scaleb(-3)


class UnknownPrice(LookupError):
    """The price data can't price this call; the message says which part is missing."""


class Tokens(NamedTuple):
    """What one call used. ``input`` counts all input, what was read from and written to a cache included."""

    input: int
    output: int
    cache_read: int = 0
    cache_write: int = 0


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices of one token, and of the request itself; None where the data has no price for that use."""

    input: Decimal | None
    output: Decimal | None
    cache_read: Decimal | None
    cache_write: Decimal | None
    request: Decimal


class _Schedule:
    """Rates of one model on one day, by bracket of input tokens."""

    __slots__ = ("_rates", "_starts")

    def __init__(self, prices: ModelPrice) -> None:
        self._starts = sorted(set(_tier_starts(prices)))
        # One witness above each threshold picks the tier of its bracket.
        self._rates = [_rates(prices, witness) for witness in (0, *(start + 1 for start in self._starts))]

    def rates(self, input_tokens: int) -> Rates:
        return self._rates[bisect_left(self._starts, input_tokens)]


class PriceBook:
    """Prices by model and time, remembered for as long as the import runs."""

    def __init__(self) -> None:
        from genai_prices.data_snapshot import get_snapshot

        self._snapshot: DataSnapshot = get_snapshot()
        self._schedules: dict[tuple[str | None, str, date], _Schedule | None] = {}

    def price(self, model: str, tokens: Tokens, at: datetime, *, provider: str | None = None) -> Decimal:
        """Exact price in USD at the time ``at``, at most 12 decimals. Raises UnknownPrice."""
        if tokens.cache_read + tokens.cache_write > tokens.input:
            raise UnknownPrice("input_tokens counts all input, so it can't be less than its cached tokens")
        day = at.date() if at.tzinfo is UTC else at.astimezone(UTC).date()
        key = (provider, model, day)
        if key not in self._schedules:
            self._remember(key, at)
        schedule = self._schedules[key]
        if schedule is None:
            return ledger_amount(self._hourly_price(model, tokens, at, provider))
        return ledger_amount(_linear_price(schedule.rates(tokens.input), tokens, model))

    def _remember(self, key: tuple[str | None, str, date], at: datetime) -> None:
        if len(self._schedules) >= RATES_CACHED_MAX:
            self._schedules.clear()
        provider, model, _ = key
        _, info = self._find(model, provider)
        self._schedules[key] = None if _depends_on_the_hour(info) else _Schedule(info.get_prices(at))

    def _find(self, model: str, provider: str | None) -> tuple[Provider, ModelInfo]:
        try:
            return self._snapshot.find_provider_model(model, None, provider, None)
        except LookupError as error:
            where = f" of provider {provider!r}" if provider else ""
            raise UnknownPrice(
                f"no price is known for model {model!r}{where} (genai-prices {PRICES_VERSION})"
            ) from error

    def _hourly_price(self, model: str, tokens: Tokens, at: datetime, provider: str | None) -> Decimal:
        from genai_prices import Usage

        found, info = self._find(model, provider)
        usage = Usage(
            input_tokens=tokens.input,
            output_tokens=tokens.output,
            cache_read_tokens=tokens.cache_read,
            cache_write_tokens=tokens.cache_write,
        )
        return info.calc_price(usage, found, genai_request_timestamp=at).total_price


def ledger_amount(price: Decimal) -> Decimal:
    """A computed price as the ledger takes it: at most 12 decimals.

    The one place where a price is rounded, half to even: a residual of at most 5e-13 a row, and none that
    leans one way over many rows.
    """
    if -int(price.as_tuple().exponent) <= AMOUNT_PLACES_MAX:
        return price
    return price.quantize(_SMALLEST, rounding=ROUND_HALF_EVEN, context=_WIDE)


def _linear_price(rates: Rates, tokens: Tokens, model: str) -> Decimal:
    plain = tokens.input - tokens.cache_read - tokens.cache_write
    total = _cost(rates.input, plain, "input", model)
    total = _WIDE.add(total, _cost(rates.output, tokens.output, "output", model))
    if tokens.cache_read:
        total = _WIDE.add(total, _cost(rates.cache_read, tokens.cache_read, "cache read", model))
    if tokens.cache_write:
        total = _WIDE.add(total, _cost(rates.cache_write, tokens.cache_write, "cache write", model))
    return _WIDE.add(total, rates.request) if rates.request else total


def _cost(rate: Decimal | None, count: int, use: str, model: str) -> Decimal:
    if rate is not None:
        return _WIDE.multiply(rate, count)
    if count:
        raise UnknownPrice(f"model {model!r} is listed without a price for {use} tokens")
    return _NOTHING


def _depends_on_the_hour(info: ModelInfo) -> bool:
    from genai_prices.types import TimeOfDateConstraint

    prices = info.prices if isinstance(info.prices, list) else []
    return any(isinstance(price.constraint, TimeOfDateConstraint) for price in prices)


def _tier_starts(prices: ModelPrice) -> Iterator[int]:
    from genai_prices.types import TieredPrices

    for price in vars(prices).values():
        if isinstance(price, TieredPrices):
            yield from (tier.start for tier in price.tiers)


def _rates(prices: ModelPrice, input_tokens: int) -> Rates:
    plain = _unit_rate(prices, "input_mtok", input_tokens, _PER_MILLION)
    cache_read = _unit_rate(prices, "cache_read_mtok", input_tokens, _PER_MILLION)
    cache_write = _unit_rate(prices, "cache_write_mtok", input_tokens, _PER_MILLION)
    return Rates(
        input=plain,
        output=_unit_rate(prices, "output_mtok", input_tokens, _PER_MILLION),
        cache_read=plain if cache_read is None else cache_read,
        cache_write=plain if cache_write is None else cache_write,
        request=_unit_rate(prices, "requests_kcount", input_tokens, _PER_THOUSAND) or Decimal(0),
    )


def _unit_rate(prices: ModelPrice, unit: str, input_tokens: int, per: Decimal) -> Decimal | None:
    from genai_prices.types import TieredPrices

    price = getattr(prices, unit)
    if isinstance(price, TieredPrices):
        above = [tier.price for tier in price.tiers if input_tokens > tier.start]
        price = above[-1] if above else price.base
    return None if price is None else _WIDE.multiply(price, per)
