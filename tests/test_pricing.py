"""Prices of model calls: exact, at their time, and never a silent zero."""

from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal, localcontext

import pytest
from genai_prices import Usage, calc_price
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo, Provider

from meterbook import pricing
from meterbook.pricing import PriceBook, Tokens, UnknownPrice, ledger_amount

MAY = datetime(2026, 5, 16, 12, tzinfo=UTC)
EVERY_MODEL = [(provider, model) for provider in get_snapshot().providers for model in provider.models]
COUNTS = [(0, 0, 0, 0), (1, 1, 0, 0), (374, 44, 0, 0), (199_999, 1, 5, 0), (200_001, 8_000, 7, 3), (600_000, 9, 0, 0)]


def library_price(provider: Provider, model: ModelInfo, tokens: Tokens, at: datetime) -> Decimal | None:
    """What genai-prices itself says; None where it has no price for a kind of token that was used."""
    listed = model.get_prices(at)
    if (tokens.input and listed.input_mtok is None) or (tokens.output and listed.output_mtok is None):
        return None
    usage = Usage(
        input_tokens=tokens.input,
        output_tokens=tokens.output,
        cache_read_tokens=tokens.cache_read,
        cache_write_tokens=tokens.cache_write,
    )
    with localcontext(prec=60):
        return model.calc_price(usage, provider, genai_request_timestamp=at).total_price


@pytest.mark.parametrize("counts", COUNTS)
def test_every_price_is_the_library_s_to_the_last_digit(counts: tuple[int, int, int, int]) -> None:
    """All models of the data, at three times, around the thresholds where a price changes with the input."""
    tokens, compared = Tokens(*counts), 0
    for at in (datetime(2023, 11, 16, tzinfo=UTC), MAY, datetime(2026, 9, 1, 23, 30, tzinfo=UTC)):
        book = PriceBook()
        for provider, model in EVERY_MODEL:
            expected = library_price(provider, model, tokens, at)
            if expected is None or model is not provider.find_model(model.id):
                continue
            priced = book.price(model.id, tokens, at, provider=provider.id)
            assert priced == ledger_amount(expected), (provider.id, model.id, at)
            compared += 1
    assert compared > 3 * 1_500


def test_a_price_is_that_of_its_time() -> None:
    """o3 became five times cheaper on 10 June 2025."""
    book = PriceBook()
    before, after = (book.price("o3", Tokens(1_000_000, 0), datetime(2025, 6, day, 12, tzinfo=UTC)) for day in (9, 11))
    assert (before, after) == (Decimal(10), Decimal(2))


def test_the_day_of_a_price_is_utc() -> None:
    """Half past one on the 10th in Vienna is still the 9th."""
    vienna = timezone(timedelta(hours=2))
    assert PriceBook().price("o3", Tokens(1_000_000, 0), datetime(2025, 6, 10, 1, 30, tzinfo=vienna)) == Decimal(10)


def test_a_price_that_depends_on_the_hour_is_taken_at_the_hour() -> None:
    """deepseek-chat was cheaper at night, in one and the same day."""
    book = PriceBook()
    day, night = (
        book.price("deepseek-chat", Tokens(1_000_000, 0), datetime.combine(datetime(2025, 5, 1), at, UTC))  # noqa: DTZ001
        for at in (time(12), time(20))
    )
    assert night < day


@pytest.mark.parametrize(
    ("model", "provider", "tokens"),
    [
        ("gpt-nonesuch", None, Tokens(1, 1)),
        ("gpt-4o", "nonesuch", Tokens(1, 1)),
        ("gpt-4o", "github_copilot", Tokens(1, 1)),
        ("text-embedding-3-small", None, Tokens(1, 1)),
        ("gpt-4o", None, Tokens(1, 1, cache_read=2)),
    ],
)
def test_what_has_no_price_is_an_error_never_free(model: str, provider: str | None, tokens: Tokens) -> None:
    """An unknown model or provider, a model listed without rates, output of a model that is priced for input only."""
    with pytest.raises(UnknownPrice):
        PriceBook().price(model, tokens, MAY, provider=provider)


@pytest.mark.parametrize(
    ("computed", "stored"),
    [
        ("0.0000000000005", "0"),
        ("0.0000000000015", "0.000000000002"),
        ("0.00000000000050001", "0.000000000001"),
        ("0.00137500", "0.00137500"),
        ("123456789.1234567890125", "123456789.123456789012"),
    ],
)
def test_a_computed_price_has_at_most_twelve_decimals(computed: str, stored: str) -> None:
    """Half to even, so that many rows lean nowhere; at most 0.0000000000005 a row."""
    assert ledger_amount(Decimal(computed)) == Decimal(stored)


def test_prices_are_read_without_a_network() -> None:
    """The data is the wheel's own: nothing fetched it."""
    PriceBook().price("gpt-4o", Tokens(1, 1), MAY)
    assert calc_price(Usage(input_tokens=1, output_tokens=1), "gpt-4o").auto_update_timestamp is None


def test_the_memory_for_rates_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgetting and reading again gives the same price."""
    monkeypatch.setattr(pricing, "RATES_CACHED_MAX", 1)
    book = PriceBook()
    assert [book.price(model, Tokens(1_000_000, 0), MAY) for model in ("gpt-4o", "gpt-4", "gpt-4o")] == [
        Decimal("2.5"),
        Decimal(30),
        Decimal("2.5"),
    ]
