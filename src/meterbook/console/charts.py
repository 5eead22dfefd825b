"""Charts as figures for SVG, computed here: pages show them without a script. Positions are whole hundredths, from exact amounts."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal

HEIGHT = 190
WIDTH = 1080
LEFT = 56
TOP = 10
BOTTOM = 22
TICKS_MAX = 4
STEPS = (Decimal(1), Decimal(2), Decimal("2.5"), Decimal(5), Decimal(10))


@dataclass(frozen=True, slots=True)
class Bar:
    """`lower` and `upper`: the parts of one column, e.g. what counts and what was refreshed."""

    label: str
    lower: Decimal
    upper: Decimal


@dataclass(frozen=True, slots=True)
class Drawn:
    label: str
    short: str
    lower: Decimal
    upper: Decimal
    x: str
    width: str
    lower_y: str
    lower_height: str
    upper_y: str
    upper_height: str
    named: bool


@dataclass(frozen=True, slots=True)
class Tick:
    amount: Decimal
    y: str


@dataclass(frozen=True, slots=True)
class Chart:
    width: int
    height: int
    left: int
    base: int
    bars: Sequence[Drawn]
    ticks: Sequence[Tick]


def columns(bars: Sequence[Bar]) -> Chart:
    """Stacked columns; a negative sum (corrections) is drawn as nothing and told in the table."""
    highest = max((_positive(bar.lower) + _positive(bar.upper) for bar in bars), default=Decimal(0))
    step = _step(highest)
    top = step * max(Decimal(1), (highest / step).to_integral_value(ROUND_CEILING))
    base, room = HEIGHT - BOTTOM, HEIGHT - BOTTOM - TOP
    slot = Decimal(WIDTH - LEFT) / max(1, len(bars))
    gap = min(slot * Decimal("0.25"), Decimal(6))
    every = max(1, -(-len(bars) // 8))
    drawn = []
    for place, bar in enumerate(bars):
        lower, upper = (_positive(part) / top * room for part in (bar.lower, bar.upper))
        drawn.append(
            Drawn(
                bar.label, bar.label[5:], bar.lower, bar.upper,
                _at(LEFT + slot * place + gap / 2), _at(slot - gap), _at(base - lower), _at(lower),
                _at(base - lower - upper), _at(upper), place % every == 0,
            )
        )  # fmt: skip
    ticks = [Tick(step * n, _at(base - step * n / top * room)) for n in range(int(top / step) + 1)]
    return Chart(WIDTH, HEIGHT, LEFT, base, drawn, ticks)


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a bar, in hundredths of a percent of its length."""

    name: str
    amount: Decimal
    start: str
    length: str


@dataclass(frozen=True, slots=True)
class LimitBar:
    """Two bars on one scale: what was recorded and how much of it the refresh took, and what counts against the limit."""

    recorded: Sequence[Part]
    counted: Sequence[Part]
    limit: str


def limit_bar(
    *, baseline: Decimal, ledger: Decimal, refresh: Decimal, effective: Decimal, held: Decimal, limit: Decimal
) -> LimitBar:
    scale = max(limit, baseline + ledger, effective + held) or Decimal(1)
    kept = max(Decimal(0), ledger - refresh)
    recorded = _parts(scale, ("baseline", baseline), ("ledger", kept), ("refresh", refresh))
    counted = _parts(scale, ("used", effective), ("holds", held))
    return LimitBar(recorded, counted, _percent(limit, scale))


def share(amount: Decimal, whole: Decimal) -> str:
    """The length of a bar beside a number, in percent."""
    return _percent(amount, whole) if whole > 0 else "0"


def _parts(scale: Decimal, *named: tuple[str, Decimal]) -> list[Part]:
    found, start = [], Decimal(0)
    for name, amount in named:
        if amount > 0:
            found.append(Part(name, amount, _percent(start, scale), _percent(amount, scale)))
            start += amount
    return found


def _step(highest: Decimal) -> Decimal:
    """A round number, so that few lines divide the height."""
    if highest <= 0:
        return Decimal(1)
    power = Decimal(10) ** (highest / TICKS_MAX).adjusted()
    return next(step * power for step in STEPS if step * power * TICKS_MAX >= highest)


def _positive(amount: Decimal) -> Decimal:
    return max(Decimal(0), amount)


def _percent(amount: Decimal, scale: Decimal) -> str:
    return _at(min(Decimal(100), max(Decimal(0), amount / scale * 100)))


def _at(value: Decimal) -> str:
    return str(value.quantize(Decimal("0.01"), rounding=ROUND_HALF_UP))
