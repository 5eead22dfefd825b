"""What the commands draw, on terminals of every kind."""

from decimal import Decimal
from io import StringIO

import pytest
from rich.console import Console

from meterbook.cli.screen import amount_shown, bar, console, is_plain, table


@pytest.mark.parametrize(
    ("exact", "shown"),
    [
        ("0.00009999", "0.0000"),
        ("39.99999", "39.9999"),
        ("1234567.89", "1,234,567.8900"),
        ("-0.00001", "0.0000"),
        ("-2.00019", "-2.0001"),
        ("999999999999.999999999999", "999,999,999,999.9999"),
    ],
)
def test_amounts_are_cut_and_never_rounded_up(exact: str, shown: str) -> None:
    """Nobody sees more than was used, and no minus stands before nothing."""
    assert amount_shown(Decimal(exact)) == shown


@pytest.mark.parametrize(
    ("value", "drawn", "plain"),
    [("10", "██████████", "##########"), ("5.5", "█████▌", "#####"), ("0.01", "▏", "#"), ("0", "", ""), ("-1", "", "")],
)
def test_a_bar_shows_whatever_is_above_zero(value: str, drawn: str, plain: str) -> None:
    """In eighths of a character, or in number signs."""
    assert bar(Decimal(value), Decimal(10), 10, plain=False) == drawn
    assert bar(Decimal(value), Decimal(10), 10, plain=True) == plain


def test_without_a_terminal_a_table_is_plain_ascii_and_not_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a log, a pipe or a dumb terminal can hold it."""
    monkeypatch.delenv("COLUMNS", raising=False)
    stream = StringIO()
    on = console(stream)
    made = table(on, "who", "amount", numbers=["amount"])
    made.add_row("a name of more than eighty characters that a narrow terminal would have to fold in two", "1.0000")
    on.print(made)
    assert is_plain(on)
    assert stream.getvalue().isascii()
    assert "in two  1.0000" in stream.getvalue()


def test_a_terminal_gets_lines_and_a_dumb_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """TERM=dumb is believed, whatever the stream says of itself."""
    monkeypatch.setenv("TERM", "xterm-256color")
    assert not is_plain(Console(file=StringIO(), force_terminal=True))
    monkeypatch.setenv("TERM", "dumb")
    assert is_plain(Console(file=StringIO(), force_terminal=True))
