"""Why a number is what it is: a figure, its formula and the terms it was made from (BEHAVIOUR §14)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import NamedTuple, TypedDict

from meterbook.core.money import EXACT, total_of


@dataclass(frozen=True, slots=True)
class Derivation:
    """`stands_for`: how many things a term is the sum of that are not below it."""

    name: str
    value: Decimal | int | str
    formula: str = ""
    terms: tuple["Derivation", ...] = ()
    note: str = ""
    stands_for: int = 1


class DerivationData(TypedDict):
    name: str
    value: str | int
    formula: str
    terms: list["DerivationData"]
    note: str


def as_data(derivation: Derivation) -> DerivationData:
    """The whole tree, no term left out or grouped; amounts are strings, counts are numbers."""
    value = derivation.value
    return {
        "name": derivation.name,
        "value": amount_text(value) if isinstance(value, Decimal) else value,
        "formula": derivation.formula,
        "terms": [as_data(term) for term in derivation.terms],
        "note": derivation.note,
    }


def amount_text(amount: Decimal) -> str:
    """Exact and plain, with at least two places: `3.00`, `0.25`, `0.0000001`."""
    text = str(amount)
    whole, _, fraction = (f"{amount:f}" if "E" in text else text).partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def counted(entries: int) -> str:
    """`1 entry`, `1,200 entries`."""
    return f"{entries:,} {'entry' if entries == 1 else 'entries'}"


def render(derivation: Derivation) -> str:
    """The tree as lines of a bill: terms indented below their figure, exact amounts aligned at the point.

    Consecutive numbered terms of equal value share a line: `days 0–9: 10 × 0.25`.
    """
    lines = list(_lines(derivation, depth=0))
    label, left, right = (max(len(line[column]) for line in lines) for column in range(3))
    return "\n".join(
        f"{line.label:<{label}}  {line.left:>{left}}{line.right:<{right}}  {line.remark}".rstrip() for line in lines
    )


def abridged(derivation: Derivation, terms_max: int) -> Derivation:
    """The first terms of each figure, and the sum of the others in a line: a tree that fits a page and still adds up."""
    shown = tuple(abridged(term, terms_max) for term in derivation.terms[:terms_max])
    rest = derivation.terms[terms_max:]
    if len(rest) > 1:
        amounts = (term.value for term in rest if isinstance(term.value, Decimal))
        number = sum(term.stands_for for term in rest)
        others = Derivation(f"and {number:,} others", total_of(amounts), stands_for=number)
        return replace(derivation, terms=(*shown, others))
    return replace(derivation, terms=(*shown, *(abridged(term, terms_max) for term in rest)))


class _Line(NamedTuple):
    label: str
    left: str  # of the decimal point
    right: str  # from the decimal point on
    remark: str


def _lines(derivation: Derivation, depth: int) -> Iterator[_Line]:
    yield _line(derivation, depth)
    for run in _runs(derivation.terms):
        if len(run) > 1:
            yield _line(_grouped(run), depth + 1)
        else:
            yield from _lines(run[0], depth + 1)


def _line(derivation: Derivation, depth: int) -> _Line:
    value = derivation.value
    text = amount_text(value) if isinstance(value, Decimal) else str(value)
    whole, point, fraction = text.partition(".") if isinstance(value, Decimal) else (text, "", "")
    note = f"({derivation.note})" if derivation.note else ""
    remark = "  ".join(part for part in (derivation.formula, note) if part)
    return _Line("  " * depth + derivation.name, whole, point + fraction, remark)


def _runs(terms: Iterable[Derivation]) -> Iterator[list[Derivation]]:
    run: list[Derivation] = []
    for term in terms:
        if run and not _continues(run[-1], term):
            yield run
            run = []
        run.append(term)
    if run:
        yield run


def _continues(term: Derivation, following: Derivation) -> bool:
    """Whether both can share a line: `day 4`, `day 5`, of equal amounts, with nothing below them."""
    word, number = _numbered(term.name)
    return (
        number is not None
        and _numbered(following.name) == (word, number + 1)
        and isinstance(term.value, Decimal)
        and term.value == following.value
        and term.note == following.note
        and not (term.terms or following.terms)
    )


def _grouped(run: list[Derivation]) -> Derivation:
    (word, first), (_, last) = _numbered(run[0].name), _numbered(run[-1].name)
    each = Decimal(run[0].value)
    name = f"{word}s {first}–{last}: {len(run)} × {amount_text(each)}"
    return Derivation(name, EXACT.multiply(each, Decimal(len(run))), note=run[0].note)


def _numbered(name: str) -> tuple[str, int | None]:
    word, _, number = name.rpartition(" ")
    return (word, int(number)) if number.isascii() and number.isdigit() else (name, None)
