"""Tables, amounts and bars: colour and block characters where the terminal has them, plain ASCII elsewhere."""

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import ROUND_DOWN, Context, Decimal
from typing import TextIO

from rich.box import SIMPLE_HEAD, Box
from rich.console import Console
from rich.table import Table

WIDTH_WITHOUT_TERMINAL = 160
AMOUNT_PLACES = 4

_PLAIN_HEAD = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_WIDE = Context(prec=80)


def console(stream: TextIO | None = None) -> Console:
    """On ``stream``, standard output unless given. Without a terminal, lines are long rather than folded."""
    target = stream or sys.stdout
    width = None if target.isatty() or "COLUMNS" in os.environ else WIDTH_WITHOUT_TERMINAL
    return Console(file=target, width=width, highlight=False, emoji=False, markup=False, soft_wrap=False)


def is_plain(on: Console) -> bool:
    """No terminal, a dumb one, or one that can't show block characters."""
    return not on.is_terminal or on.is_dumb_terminal or not (on.encoding or "").lower().startswith("utf")


def table(on: Console, *columns: str, numbers: Sequence[str] = (), whole: Sequence[str] = ()) -> Table:
    """An empty table. Columns in ``numbers`` stand to the right; they and those in ``whole`` are never folded."""
    made = Table(
        box=_PLAIN_HEAD if is_plain(on) else SIMPLE_HEAD,
        header_style="bold",
        pad_edge=False,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    for name in columns:
        made.add_column(
            name,
            justify="right" if name in numbers else "left",
            no_wrap=name in numbers or name in whole,
            overflow="fold",
            style="" if name else "cyan",
        )
    return made


def amount_shown(amount: Decimal, places: int = AMOUNT_PLACES) -> str:
    """Cut, never rounded up (BEHAVIOUR I5): ``1,234.5678``. The exact amount is in the JSON."""
    cut = amount.quantize(Decimal(1).scaleb(-places), rounding=ROUND_DOWN, context=_WIDE)
    return f"{cut or abs(cut):,f}"


def cents_shown(cents: int) -> str:
    """``1,234.56``: what was billed or granted has cents and nothing beyond."""
    return amount_shown(Decimal(cents).scaleb(-2), 2)


def time_shown(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def bar(value: Decimal, most: Decimal, width: int, *, plain: bool) -> str:
    """``value`` of ``most`` as a bar of up to ``width`` characters; whatever is above zero shows."""
    if value <= 0 or most <= 0:
        return ""
    if plain:
        return "#" * max(1, int(value * width / most))
    full, eighths = divmod(max(1, int(value * width * 8 / most)), 8)
    return _EIGHTHS[8] * full + (_EIGHTHS[eighths] if eighths else "")
