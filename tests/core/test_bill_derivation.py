"""A tree that fits a page still adds up."""

from decimal import Decimal

from meterbook.core.derivation import Derivation, abridged


def test_what_is_left_out_is_summed_in_one_line() -> None:
    """Of five terms two stand, and the others are one: the sum stays."""
    whole = Derivation("total", Decimal(15), "", tuple(Derivation(str(n), Decimal(n)) for n in (5, 4, 3, 2, 1)))
    short = abridged(whole, 2)
    assert [(term.name, term.value) for term in short.terms] == [("5", 5), ("4", 4), ("and 3 others", 6)]


def test_a_single_term_is_not_replaced_by_a_line_that_says_one() -> None:
    """Three terms where two fit: the third stands as it is."""
    whole = Derivation("total", Decimal(6), "", tuple(Derivation(str(n), Decimal(n)) for n in (3, 2, 1)))
    assert abridged(whole, 2) == whole


def test_what_is_left_out_counts_what_a_term_stands_for() -> None:
    """§14: a term that is itself the sum of many is many: one row and a sum of 1,430 are 1,431 others, not 2."""
    rows = tuple(Derivation(str(n), Decimal(n)) for n in (3, 2, 1))
    whole = Derivation("total", Decimal(50), "", (*rows, Derivation("others", Decimal(44), stands_for=1430)))
    short = abridged(whole, 2)
    assert [(term.name, term.value) for term in short.terms] == [("3", 3), ("2", 2), ("and 1,431 others", 45)]
